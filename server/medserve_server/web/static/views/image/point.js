// Shows and adjusts the operating point.

import { line } from "../../charts.js";
import { element, replace, svg } from "../../dom.js";
import { percent, t } from "../../language.js";
import { curvesOf, nearestStep, stepsOf } from "./decision.js";

/** @typedef {import("./decision.js").NamedPoint} NamedPoint */
/** @typedef {import("./decision.js").Point} Point */
/** @typedef {import("./decision.js").Step} Step */
/** @typedef {import("./decision.js").Task} Task */

/**
 * Returns the section of the operating point.
 * @param {Task | null} task
 * @param {Point | null} chosen
 * @param {(point: Point) => void} onChange
 */
export function operatingPoint(task, chosen, onChange) {
  return element(
    "section",
    { class: "image-point" },
    element("h3", {}, t("image.point")),
    ...(task && chosen ? pointControls(task, chosen, onChange) : [element("p", {}, t("image.no_points"))]),
  );
}

/**
 * @param {Task} task
 * @param {Point} chosen
 * @param {(point: Point) => void} onChange
 */
function pointControls(task, chosen, onChange) {
  let current = chosen;
  const points = task.operatingPoints;
  const label = element("label", { for: "image-threshold" });
  const slider = element("input", { type: "range", id: "image-threshold", min: 0, step: 1 });
  const figures = element("dl", { class: "image-figures" });
  const ticks = element("div", {});
  const chart = element("div", {});
  const notes = element("div", { class: "image-notes" });
  const radios = points.map(({ name }) => element("input", { type: "radio", name: "image-point", value: name }));

  function show() {
    const steps = stepsOf(task, current.positiveLabel);
    const index = steps.findIndex(({ threshold }) => threshold >= current.threshold);
    slider.max = String(steps.length - 1);
    slider.value = String(index);
    slider.setAttribute("aria-valuetext", percent(current.threshold));
    radios.forEach((radio) => (radio.checked = radio.value === current.name));
    replace(label, t("image.threshold_of", { label: current.positiveLabel }));
    replace(figures, ...figuresOf(steps[index]));
    const marked = points.filter(({ positiveLabel }) => positiveLabel === current.positiveLabel);
    replace(ticks, marks(steps, marked));
    replace(chart, curveChart(task, current));
    replace(notes, ...notesOf(task, current));
  }

  slider.addEventListener("input", () => {
    const { positiveLabel } = current;
    const { threshold } = stepsOf(task, positiveLabel)[Number(slider.value)];
    const named = points.find((one) => one.positiveLabel === positiveLabel && one.threshold === threshold);
    current = named ?? { name: "", positiveLabel, threshold };
    show();
    onChange(current);
  });
  radios.forEach((radio, index) =>
    radio.addEventListener("change", () => {
      current = points[index];
      show();
      onChange(current);
    }),
  );
  show();
  return [figures, label, slider, ticks, chart, pointsTable(task, radios), notes];
}

/** @param {Step} step */
function figuresOf({ threshold, sensitivity, specificity }) {
  /**
   * @param {string} name
   * @param {number | null} value
   */
  const figure = (name, value) =>
    element(
      "div",
      {},
      element("dt", {}, name),
      element("dd", {}, value === null ? t("image.unknown") : percent(value)),
    );
  return [
    figure(t("image.threshold"), threshold),
    figure(t("image.sensitivity"), sensitivity),
    figure(t("image.specificity"), specificity),
  ];
}

/**
 * Marks named operating points below the slider.
 * @param {Step[]} steps  with a step for each point
 * @param {NamedPoint[]} points
 */
function marks(steps, points) {
  const last = steps.length - 1;
  const ticks = points.map(({ name, threshold }) => {
    const x = (1000 * steps.findIndex((step) => step.threshold === threshold)) / last;
    return svg("line", { x1: x, x2: x, y1: 0, y2: 8 }, svg("title", {}, name));
  });
  return svg(
    "svg",
    { viewBox: "0 0 1000 8", preserveAspectRatio: "none", class: "image-ticks", "aria-hidden": "true" },
    ...ticks,
  );
}

/**
 * @param {Task} task
 * @param {Point} point
 */
function curveChart(task, { positiveLabel, threshold }) {
  const [curve] = curvesOf(task, positiveLabel);
  if (!curve) return null;
  return line({
    x: curve.steps.map((step) => step.threshold),
    series: [
      { label: t("image.sensitivity"), y: curve.steps.map(({ sensitivity }) => Number(sensitivity)) },
      { label: t("image.specificity"), y: curve.steps.map(({ specificity }) => Number(specificity)) },
    ],
    xLabel: t("image.threshold"),
    yLabel: t("image.rate"),
    yMax: 1,
    format: (value) => percent(value, 0),
    marker: threshold,
  });
}

/**
 * Returns on what the figures were measured, those on other splits, and where the threshold applies.
 * @param {Task} task
 * @param {Point} point
 */
function notesOf(task, { name, positiveLabel, threshold }) {
  const [curve, ...others] = curvesOf(task, positiveLabel);
  const split = task.operatingPoints.find((one) => one.name === name)?.chosenOn ?? curve?.split;
  const elsewhere = others.map(({ split: other, steps }) => {
    const step = nearestStep(steps, threshold);
    return t("image.other_split", {
      split: other,
      threshold: percent(step.threshold),
      sensitivity: percent(Number(step.sensitivity)),
      specificity: percent(Number(step.specificity)),
    });
  });
  return [
    ...(split ? [t("image.measured_on", { split })] : []),
    ...elsewhere,
    ...(curve ? [] : [t("image.no_curve")]),
    ...(name === task.defaultOperatingPoint ? [] : [t("image.point_changed", { name: task.defaultOperatingPoint })]),
  ].map((text) => element("p", { class: "muted" }, text));
}

/**
 * @param {Task} task
 * @param {HTMLInputElement[]} radios  one for each operating point
 */
function pointsTable(task, radios) {
  const head = ["image.point_name", "image.threshold", "image.sensitivity", "image.specificity"];
  const rows = task.operatingPoints.map(({ name, threshold, sensitivity, specificity }, index) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, element("label", {}, radios[index], " ", name)),
      ...[threshold, sensitivity, specificity].map((value) => element("td", { class: "numeric" }, percent(value))),
    ),
  );
  const columns = head.map((key, index) => element("th", { scope: "col", class: index ? "numeric" : null }, t(key)));
  return element(
    "div",
    { class: "table-scroll", tabindex: 0, role: "region", "aria-label": t("image.named_points") },
    element(
      "table",
      {},
      element("caption", {}, t("image.named_points")),
      element("thead", {}, element("tr", {}, ...columns)),
      element("tbody", {}, ...rows),
    ),
  );
}
