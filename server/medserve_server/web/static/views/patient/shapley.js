/** Shapley values as a waterfall: from the mean risk of the background patients, feature by feature, to the risk. */

import { element } from "../../dom.js";
import { number, percent, t } from "../../language.js";
import { rowBar } from "./charts.js";
import { described, title } from "./features.js";

/** @typedef {import("./features.js").RiskTask} RiskTask */
/** @typedef {import("./features.js").Values} Values */
/** @typedef {import("./result.js").PatientResult} PatientResult */

/**
 * Returns the contributions, largest first, and the values; without contributions, only the values.
 *
 * @param {RiskTask} task
 * @param {Values} values
 * @param {PatientResult} result
 */
export function shapleySection(task, values, result) {
  return result.shapley
    ? waterfall(task, values, result.shapley)
    : element(
        "section",
        {},
        element("h3", {}, t("patient.shapley_values")),
        element(
          "table",
          { class: "patient-shapley" },
          element(
            "tbody",
            {},
            ...task.features.map((feature) =>
              element(
                "tr",
                {},
                element("th", { scope: "row" }, title(feature)),
                element("td", {}, described(values.get(feature.name) ?? null, feature)),
              ),
            ),
          ),
        ),
        element("p", { class: "patient-hint" }, t("patient.shapley_unavailable")),
      );
}

/**
 * @param {RiskTask} task
 * @param {Values} values
 * @param {NonNullable<PatientResult["shapley"]>} shapley
 */
function waterfall(task, values, { horizon, baseRisk, contributions }) {
  const sorted = [...contributions].sort((one, other) => Math.abs(other.value) - Math.abs(one.value));
  const sums = [baseRisk];
  for (const { value } of sorted) {
    sums.push(sums[sums.length - 1] + value);
  }
  const risk = sums[sums.length - 1];
  const [low, high] = [Math.min(...sums), Math.max(...sums)];
  const margin = 0.06 * (high - low) || 0.01;
  const at = (/** @type {number} */ sum) => (sum - low + margin) / (high - low + 2 * margin);
  const rows = sorted.map(({ feature: name, value }, index) => {
    const feature = task.features.find((one) => one.name === name);
    return element(
      "tr",
      {},
      element(
        "th",
        { scope: "row" },
        feature ? title(feature) : name,
        feature ? element("span", { class: "patient-value" }, described(values.get(name) ?? null, feature)) : null,
      ),
      element("td", { class: "patient-bar-cell" }, rowBar(at(sums[index]), at(sums[index + 1]), value < 0 ? "down" : "up")),
      element("td", { class: "numeric" }, element("data", { value }, points(value))),
    );
  });
  return element(
    "section",
    {},
    element("h3", {}, t("patient.shapley_title", { horizon })),
    element(
      "table",
      { class: "patient-shapley" },
      element("caption", { class: "patient-hint" }, t("patient.shapley_caption")),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("th", { scope: "col" }, t("patient.shapley_feature")),
          element("td", {}),
          element("th", { scope: "col", class: "numeric" }, t("patient.shapley_points")),
        ),
      ),
      element(
        "tbody",
        {},
        totalRow(t("patient.shapley_base"), at(baseRisk), baseRisk),
        ...rows,
        totalRow(t("patient.shapley_risk", { horizon }), at(risk), risk),
      ),
    ),
  );
}

/**
 * @param {string} label
 * @param {number} at
 * @param {number} risk
 */
function totalRow(label, at, risk) {
  return element(
    "tr",
    { class: "patient-total" },
    element("th", { scope: "row" }, label),
    element("td", { class: "patient-bar-cell" }, rowBar(at - 0.004, at + 0.004, "total")),
    element("td", { class: "numeric" }, element("data", { value: risk }, percent(risk))),
  );
}

/**
 * Formats a difference of risks in percentage points, with its sign.
 *
 * @param {number} difference
 */
export function points(difference) {
  const text = number(Math.abs(100 * difference), 1);
  return text === number(0, 1) ? text : `${difference < 0 ? "−" : "+"}${text}`;
}
