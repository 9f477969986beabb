/** Charts of a risk as SVG: positions are percentages of the width, as in charts.js. */

import { ticks } from "../../charts.js";
import { svg } from "../../dom.js";
import { percent, t } from "../../language.js";

/** @typedef {import("./features.js").RiskTask} RiskTask */
/** @typedef {import("./result.js").PatientResult} PatientResult */

const PLOT_HEIGHT = 220;
// Minimum distance of two labels below the axis, in percent of the width.
const LABEL_DISTANCE = 17;

/**
 * Returns the survival curves of one or more results. At each horizon, a whisker spans one standard deviation of the
 * members in both directions.
 *
 * @param {RiskTask} task
 * @param {{label: string, result: PatientResult}[]} curves
 * @returns {SVGSVGElement}
 */
export function survivalChart(task, curves) {
  const { times } = curves[0].result.survival;
  const end = times[times.length - 1] || 1;
  const x = (/** @type {number} */ time) => (time / end) * 100;
  const y = (/** @type {number} */ probability) => 100 * (1 - clamped(probability));
  const lines = curves.map(({ result }, index) =>
    svg("path", {
      class: `line series-${index}`,
      d: result.survival.times
        .map((time, at) => `${at ? "L" : "M"}${x(time).toFixed(3)} ${y(result.survival.probabilities[at]).toFixed(3)}`)
        .join(""),
    }),
  );
  const legend = curves.length > 1 ? curves.map(({ label }, index) => legendEntry(label, index)) : [];
  const top = 24;
  const bottom = top + PLOT_HEIGHT + 46;
  const name = t("patient.survival_label", { event: task.event });
  return svg(
    "svg",
    {
      class: "chart patient-survival",
      role: "img",
      "aria-label": `${name}. ${curves.map(summary).join("; ")}`,
      width: "100%",
      height: bottom + legend.length * 20,
    },
    svg("text", { x: 0, y: 12, class: "axis" }, name),
    svg(
      "svg",
      { class: "plot", x: "13%", y: top, width: "82%", height: PLOT_HEIGHT },
      ...ticks(0, 1, 5).flatMap((value) => [
        svg("line", { class: "grid", x1: 0, x2: "100%", y1: `${y(value)}%`, y2: `${y(value)}%` }),
        svg("text", { class: "y-tick", x: -6, y: `${y(value)}%`, dy: "0.32em" }, percent(value, 0)),
      ]),
      ...task.horizons.map(({ time }) =>
        svg("line", { class: "patient-horizon", x1: `${x(time)}%`, x2: `${x(time)}%`, y1: 0, y2: "100%" }),
      ),
      ...horizonLabels(task, x),
      svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", width: "100%", height: "100%" }, ...lines),
      ...curves.flatMap(({ result }, index) => result.risks.map((risk) => point(risk, index, x, y))),
    ),
    svg("text", { x: "95%", y: top + PLOT_HEIGHT + 38, class: "axis end" }, t("patient.survival_time")),
    svg("svg", { y: bottom }, ...legend),
  );
}

/** @param {{label: string, result: PatientResult}} curve */
function summary({ label, result }) {
  return `${label}: ${result.risks.map(({ horizon, risk }) => `${horizon} ${percent(1 - risk)}`).join(", ")}`;
}

/**
 * Returns the labels of the horizons, without those too close to the one after.
 *
 * @param {RiskTask} task
 * @param {(time: number) => number} x
 */
function horizonLabels(task, x) {
  let next = Infinity;
  const kept = [...task.horizons].reverse().filter(({ time }) => {
    const isFree = next - x(time) >= LABEL_DISTANCE;
    next = isFree ? x(time) : next;
    return isFree;
  });
  return kept.map(({ label, time }) => svg("text", { class: "x-tick", x: `${x(time)}%`, y: "100%", dy: 18 }, label));
}

/**
 * @param {{time: number, risk: number, uncertainty?: number}} risk
 * @param {number} index
 * @param {(time: number) => number} x
 * @param {(probability: number) => number} y
 */
function point({ time, risk, uncertainty = 0 }, index, x, y) {
  const [high, low] = [y(1 - risk + uncertainty), y(1 - risk - uncertainty)];
  const cap = (/** @type {number} */ at) =>
    svg("svg", { x: `${x(time)}%`, y: `${at}%`, overflow: "visible" }, svg("line", { x1: -5, x2: 5, y1: 0, y2: 0 }));
  const whisker = uncertainty
    ? [svg("line", { x1: `${x(time)}%`, x2: `${x(time)}%`, y1: `${high}%`, y2: `${low}%` }), cap(high), cap(low)]
    : [];
  return svg(
    "g",
    { class: `patient-point series-${index}` },
    ...whisker,
    svg("circle", { cx: `${x(time)}%`, cy: `${y(1 - risk)}%`, r: 3.5 }),
  );
}

/**
 * @param {string} label
 * @param {number} index
 */
function legendEntry(label, index) {
  const y = index * 20 + 10;
  return svg(
    "g",
    {},
    svg("line", { class: `line series-${index}`, x1: 2, x2: 26, y1: y, y2: y }),
    svg("text", { x: 34, y, dy: "0.32em" }, label),
  );
}

/**
 * Returns the ranges of the risk groups from 0 to 100 %, with a mark at the risk. The table below it has the numbers.
 *
 * @param {RiskTask} task
 * @param {number} risk
 * @returns {SVGSVGElement}
 */
export function groupScale(task, risk) {
  let low = 0;
  const parts = task.riskGroups.map(({ riskBelow }, index) => {
    const high = clamped(riskBelow);
    const shade = Math.round((index / Math.max(1, task.riskGroups.length - 1)) * 4);
    const part = svg("rect", {
      class: `patient-group shade-${shade}`,
      x: `${100 * low}%`,
      width: `${100 * (high - low)}%`,
      y: 10,
      height: 14,
    });
    low = high;
    return part;
  });
  const at = `${100 * clamped(risk)}%`;
  return svg(
    "svg",
    { class: "chart patient-scale", "aria-hidden": "true", width: "100%", height: 44 },
    ...parts,
    svg("svg", { x: at, overflow: "visible" }, svg("path", { class: "patient-mark", d: "M0 24 L-6 6 L6 6 Z" })),
    svg("text", { x: 0, y: 40 }, percent(0, 0)),
    svg("text", { x: "50%", y: 40, class: "middle" }, percent(0.5, 0)),
    svg("text", { x: "100%", y: 40, class: "value" }, percent(1, 0)),
  );
}

/**
 * Returns a bar of a table's row.
 *
 * @param {number} from 0 to 1 of the width
 * @param {number} to
 * @param {string} kind its class
 * @param {number} [spread] length of a whisker in both directions from `to`
 * @returns {SVGSVGElement}
 */
export function rowBar(from, to, kind, spread = 0) {
  const at = (/** @type {number} */ share) => `${(100 * clamped(share)).toFixed(3)}%`;
  return svg(
    "svg",
    { class: "chart patient-bar", "aria-hidden": "true", width: "100%", height: 20 },
    svg("line", { class: "grid", x1: 0, x2: "100%", y1: 10, y2: 10 }),
    svg("rect", {
      class: kind,
      x: at(Math.min(from, to)),
      width: at(Math.max(0.003, Math.abs(to - from))),
      y: 4,
      height: 12,
    }),
    spread ? svg("line", { class: "whisker", x1: at(to - spread), x2: at(to + spread), y1: 10, y2: 10 }) : null,
  );
}

/** @param {number} share */
function clamped(share) {
  return Math.min(1, Math.max(0, share));
}
