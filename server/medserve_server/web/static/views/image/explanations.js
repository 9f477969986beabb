// Occlusion and class activation maps, drawn over the model's input.

import { element, replace, svg } from "../../dom.js";
import { number, percent, t } from "../../language.js";
import { errorBox } from "../errors.js";
import { classify } from "./requests.js";

/** @typedef {import("./requests.js").ReasonMap} ReasonMap */
/** @typedef {import("./requests.js").Reasons} Reasons */
/** @typedef {"occlusion" | "classActivation"} Kind */
/**
 * @typedef {object} Explained
 * @property {import("./requests.js").Model} model
 * @property {import("./view.js").Entry} entry  with a result
 * @property {import("./decision.js").Task | null} task
 * @property {AbortSignal} signal
 */

const SUPPORTING = "#d62728";
const OPPOSING = "#1f77b4";
const OPACITY = 65; // percent, as in the server's overlays

/**
 * The explanations of each result by what was requested, which outlive the view.
 * @type {WeakMap<object, Map<string, unknown>>}
 */
const computed = new WeakMap();

/**
 * Returns the explanations of the entry's result that have been computed, to which others are added.
 * @param {import("./view.js").Entry} entry  with a result
 */
export function computedFor({ result }) {
  const known = (result && computed.get(result)) ?? new Map();
  if (result) computed.set(result, known);
  return known;
}

/**
 * Returns the section with the choice of a map, its opacity and its legend.
 * @param {Explained} explained
 * @param {SVGGElement} layer  over the model's input, in its pixels
 * @param {string} decided  the label that is explained at first
 * @param {(reasons: Reasons | null) => void} onRequest  called with what is shown
 */
export function explanations({ model, entry, task, signal }, layer, decided, onRequest) {
  /** @type {Kind[]} */
  const kinds = task?.classActivation ? ["occlusion", "classActivation"] : ["occlusion"];
  /** @type {Kind | ""} */
  let kind = "";
  const labels = task?.labels ?? entry.result?.labels.map(({ label }) => label) ?? [];
  const label = element(
    "select",
    { id: "image-explained" },
    ...labels.map((one) => element("option", { value: one, selected: one === decided }, one)),
  );
  const opacity = element("input", { type: "range", id: "image-opacity", min: 0, max: 100, step: 5, value: OPACITY });
  const settings = element(
    "div",
    { class: "image-settings", hidden: true },
    element("label", { for: "image-explained" }, t("image.explained_label")),
    label,
    element("label", { for: "image-opacity" }, t("image.opacity")),
    opacity,
  );
  const below = element("div", { "aria-live": "polite" });

  async function update() {
    settings.hidden = kind === "";
    replace(layer);
    replace(below);
    if (kind === "") {
      onRequest(null);
      return;
    }
    const chosen = kind;
    const reasons = { label: label.value, [chosen]: true };
    const current = () => kind === chosen && label.value === reasons.label;
    onRequest(reasons);
    try {
      replace(below, element("p", { class: "loading" }, t("image.computing")));
      const map = await mapOf(chosen, reasons);
      if (!current()) return;
      replace(layer, ...cells(map, task));
      replace(below, ...legend(chosen, map));
    } catch (error) {
      if (current() && !signal.aborted) replace(below, errorBox(error, update));
    }
  }

  /**
   * @param {Kind} chosen
   * @param {Reasons} reasons
   * @returns {Promise<ReasonMap>}
   */
  async function mapOf(chosen, reasons) {
    const known = computedFor(entry);
    const key = `${chosen} ${reasons.label}`;
    const map = known.get(key) ?? (await classify(model, entry, entry.resultFrame, reasons, signal))[chosen];
    known.set(key, map);
    return /** @type {ReasonMap} */ (map);
  }

  const choice = (/** @type {Kind | ""} */ value, /** @type {string} */ text) =>
    element(
      "label",
      {},
      element("input", {
        type: "radio",
        name: "image-map",
        value,
        checked: value === "",
        on: {
          change: () => {
            kind = value;
            void update();
          },
        },
      }),
      " ",
      text,
    );
  label.addEventListener("change", update);
  opacity.addEventListener("input", () => layer.setAttribute("opacity", String(opacity.valueAsNumber / 100)));
  layer.setAttribute("opacity", String(OPACITY / 100));
  return element(
    "section",
    { class: "image-explanations" },
    element(
      "fieldset",
      { class: "choices" },
      element("legend", {}, t("image.explanation")),
      choice("", t("image.no_map")),
      ...kinds.map((one) => choice(one, t(`image.${one}`))),
    ),
    settings,
    below,
  );
}

/**
 * Returns the cells of a map: red for positive values, blue for negative ones, as opaque as they are large.
 * @param {ReasonMap} map
 * @param {import("./decision.js").Task | null} task
 */
function cells({ height, width, values }, task) {
  const peak = peakOf(values) || 1;
  const [cellWidth, cellHeight] = [(task?.input.width ?? 1) / width, (task?.input.height ?? 1) / height];
  return values.map((value, index) =>
    svg(
      "rect",
      {
        x: (index % width) * cellWidth,
        y: Math.floor(index / width) * cellHeight,
        width: cellWidth,
        height: cellHeight,
        fill: value > 0 ? SUPPORTING : OPPOSING,
        "fill-opacity": Math.abs(value) / peak,
      },
      svg("title", {}, number(value, 3)),
    ),
  );
}

/** @param {number[]} values */
function peakOf(values) {
  return values.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0);
}

/**
 * @param {Kind} kind
 * @param {ReasonMap} map
 */
function legend(kind, map) {
  const { label, values } = map;
  const format = kind === "occlusion" ? percent : (/** @type {number} */ value) => number(value, 2);
  const peak = peakOf(values);
  const [lowest, highest] = [Math.min(...values), Math.max(...values)];
  const name = t("image.legend", { low: format(-peak), high: format(peak) });
  return [
    element(
      "div",
      { class: "image-legend" },
      svg(
        "svg",
        { role: "img", "aria-label": name, width: "100%", height: 14 },
        svg(
          "defs",
          {},
          svg(
            "linearGradient",
            { id: "image-gradient" },
            svg("stop", { offset: 0, "stop-color": OPPOSING }),
            svg("stop", { offset: 0.5, "stop-color": OPPOSING, "stop-opacity": 0 }),
            svg("stop", { offset: 0.5, "stop-color": SUPPORTING, "stop-opacity": 0 }),
            svg("stop", { offset: 1, "stop-color": SUPPORTING }),
          ),
        ),
        svg("rect", { width: "100%", height: 14, class: "image-legend-ground" }),
        svg("rect", { width: "100%", height: 14, fill: "url(#image-gradient)" }),
      ),
      element(
        "div",
        { class: "image-legend-labels" },
        element("span", {}, t("image.against", { value: format(-peak) })),
        element("span", {}, "0"),
        element("span", {}, t("image.supports", { value: format(peak) })),
      ),
    ),
    element("p", {}, t(`image.meaning_${kind}`, { label })),
    element("p", { class: "muted" }, t("image.range", { low: format(lowest), high: format(highest) })),
    mapTable(map, format),
  ];
}

/**
 * @param {ReasonMap} map
 * @param {(value: number) => string} format
 */
function mapTable({ height, width, values }, format) {
  const columns = Array.from({ length: width }, (_, column) => element("th", { scope: "col" }, String(column + 1)));
  const cell = (/** @type {number} */ value) => element("td", { class: "numeric" }, format(value));
  const rows = Array.from({ length: height }, (_, row) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, String(row + 1)),
      ...values.slice(row * width, (row + 1) * width).map(cell),
    ),
  );
  return element(
    "details",
    { class: "no-print" },
    element("summary", {}, t("image.values")),
    element(
      "div",
      { class: "table-scroll", tabindex: 0, role: "region", "aria-label": t("image.values") },
      element(
        "table",
        { class: "image-map" },
        element("thead", {}, element("tr", {}, element("td", {}), ...columns)),
        element("tbody", {}, ...rows),
      ),
    ),
  );
}
