/** The risks with the entered and with changed values. */

import { element } from "../../dom.js";
import { percent, t } from "../../language.js";
import { survivalChart } from "./charts.js";
import { title, withUnit } from "./features.js";
import { warningsSection } from "./result.js";
import { points } from "./shapley.js";

/** @typedef {import("./features.js").Values} Values */
/** @typedef {import("./result.js").PatientResult} PatientResult */

/**
 * Returns all risks with the entered and with the changed values.
 *
 * @param {import("./what_if.js").Patient} patient
 * @param {Values} values
 * @param {PatientResult} changed
 */
export function comparison({ task, values: entered, result }, values, changed) {
  const changes = task.features
    .filter(({ name }) => values.get(name) !== entered.get(name))
    .map((feature) => `${title(feature)}: ${withUnit(values.get(feature.name) ?? null, feature)}`);
  const names = [
    t("patient.what_if_within"),
    t("patient.what_if_entered"),
    t("patient.what_if_changed"),
    t("patient.what_if_difference"),
  ];
  const head = names.map((name, index) => element("th", { scope: "col", class: index ? "numeric" : null }, name));
  const rows = result.risks.map(({ horizon, risk }, index) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, horizon),
      element("td", { class: "numeric" }, percent(risk)),
      element("td", { class: "numeric" }, element("data", { value: changed.risks[index].risk }, percent(changed.risks[index].risk))),
      element("td", { class: "numeric" }, points(changed.risks[index].risk - risk)),
    ),
  );
  const groups = { entered: result.riskGroup, changed: changed.riskGroup };
  return [
    element("h3", {}, t("patient.what_if_comparison")),
    element(
      "table",
      { class: "patient-comparison" },
      element("caption", {}, changes.join("; ") || t("patient.what_if_unchanged")),
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows),
    ),
    element("p", {}, t("patient.what_if_groups", groups)),
    survivalChart(task, [
      { label: t("patient.what_if_entered"), result },
      { label: t("patient.what_if_changed"), result: changed },
    ]),
    warningsSection(task, values, changed),
  ];
}
