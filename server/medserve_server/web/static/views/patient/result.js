/** The result of one patient: risks, risk group, warnings and survival curve. */

import { element } from "../../dom.js";
import { percent, t } from "../../language.js";
import { groupScale, rowBar, survivalChart } from "./charts.js";
import { assumed, plain, title, withUnit } from "./features.js";
import { shapleySection } from "./shapley.js";

/** @typedef {import("./features.js").RiskTask} RiskTask */
/** @typedef {import("./features.js").Values} Values */
/** @typedef {{kind: string, feature: string, message: string}} PatientWarning */
/**
 * @typedef {object} PatientResult A PatientResult of the API.
 * @property {{horizon: string, time: number, risk: number, uncertainty?: number}[]} risks
 * @property {{times: number[], probabilities: number[]}} survival
 * @property {string} riskGroup
 * @property {PatientWarning[]} warnings
 * @property {number} [novelty]
 * @property {{horizon: string, baseRisk: number, contributions: {feature: string, value: number}[]}} [shapley]
 * @property {{horizon: string, feature: string, points: {value: {number?: number, category?: string}, risk: number}[]}} [whatIf]
 */

/**
 * Returns the result.
 *
 * @param {RiskTask} task
 * @param {Values} values
 * @param {PatientResult} result
 */
export function resultSections(task, values, result) {
  const time = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  return [
    element("p", { class: "muted" }, t("patient.result_computed", { time: time.format(new Date()) })),
    risksTable(task, result),
    groupSection(task, result),
    warningsSection(task, values, result),
    survivalSection(task, result),
    shapleySection(task, values, result),
  ];
}

/**
 * Returns the result in one sentence, for screen readers.
 *
 * @param {RiskTask} task
 * @param {PatientResult} result
 */
export function summary(task, result) {
  return t("patient.result_summary", {
    event: task.event,
    horizon: task.referenceHorizon,
    risk: percent(referenceRisk(task, result)),
    group: result.riskGroup,
    count: result.warnings.length,
  });
}

/**
 * @param {RiskTask} task
 * @param {PatientResult} result
 */
function risksTable(task, result) {
  const spread = result.risks.some(({ uncertainty }) => uncertainty !== undefined);
  const rows = result.risks.map(({ horizon, risk, uncertainty }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, horizon),
      element("td", { class: "patient-bar-cell" }, rowBar(0, risk, "fill", uncertainty)),
      element("td", { class: "patient-risk" }, element("data", { value: risk }, percent(risk))),
      spread
        ? element("td", { class: "numeric" }, uncertainty === undefined ? "" : element("data", { value: uncertainty }, `± ${percent(uncertainty)}`))
        : null,
    ),
  );
  return element(
    "section",
    {},
    element(
      "table",
      { class: "patient-risks" },
      element("caption", {}, t("patient.result_risks", { event: task.event })),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("th", { scope: "col" }, t("patient.result_within")),
          element("td", {}),
          element("th", { scope: "col", class: "numeric" }, t("patient.result_risk")),
          spread ? element("th", { scope: "col", class: "numeric" }, t("patient.result_spread")) : null,
        ),
      ),
      element("tbody", {}, ...rows),
    ),
    spread ? element("p", { class: "patient-hint" }, t("patient.result_spread_note", { members: task.members })) : null,
  );
}

/**
 * @param {RiskTask} task
 * @param {PatientResult} result
 */
function groupSection(task, result) {
  const rows = task.riskGroups.map((group, index) => {
    const low = index ? task.riskGroups[index - 1].riskBelow : null;
    const isThis = group.label === result.riskGroup;
    return element(
      "tr",
      { class: isThis ? "patient-current" : null, "aria-current": isThis ? "true" : null },
      element("th", { scope: "row" }, group.label),
      element("td", {}, groupRange(low, group.riskBelow)),
      element("td", {}, isThis ? t("patient.group_this") : ""),
    );
  });
  const horizon = task.referenceHorizon;
  return element(
    "section",
    {},
    element("h3", {}, t("patient.group_is"), element("strong", {}, result.riskGroup)),
    groupScale(task, referenceRisk(task, result)),
    element(
      "table",
      { class: "patient-groups" },
      element("caption", { class: "patient-hint" }, t("patient.group_caption", { horizon })),
      element("tbody", {}, ...rows),
    ),
  );
}

/**
 * @param {number | null} low
 * @param {number} high
 */
function groupRange(low, high) {
  if (high > 1) {
    return low === null ? t("patient.group_all") : t("patient.group_from", { low: percent(low) });
  }
  return low === null
    ? t("patient.group_below", { high: percent(high) })
    : t("patient.group_between", { low: percent(low), high: percent(high) });
}

/**
 * @param {RiskTask} task
 * @param {PatientResult} result
 */
export function referenceRisk(task, result) {
  return result.risks.find(({ horizon }) => horizon === task.referenceHorizon)?.risk ?? NaN;
}

/**
 * Returns the warnings in words.
 *
 * @param {RiskTask} task
 * @param {Values} values
 * @param {PatientResult} result
 */
export function warningsSection(task, values, result) {
  const items = result.warnings.map((warning) =>
    element("li", { class: "patient-warning" }, warningText(task, values, result, warning)),
  );
  return element(
    "section",
    {},
    element("h3", {}, t("patient.warnings_title")),
    items.length ? element("ul", { class: "patient-warnings" }, ...items) : element("p", {}, t("patient.warnings_none")),
    result.novelty !== undefined && task.novelty
      ? element("p", { class: "patient-hint" }, t("patient.warnings_novelty", noveltyOf(task, result)))
      : null,
  );
}

/**
 * Returns a warning in words.
 *
 * @param {RiskTask} task
 * @param {Values} values
 * @param {PatientResult} result
 * @param {PatientWarning} warning
 * @returns {string} the server's message if its kind is not known here
 */
export function warningText(task, values, result, warning) {
  const key = `patient.warning.${warning.kind}`;
  const feature = task.features.find(({ name }) => name === warning.feature);
  const value = values.get(warning.feature) ?? null;
  if (warning.kind === "KIND_UNFAMILIAR" && task.novelty) {
    return t(key, noveltyOf(task, result));
  }
  if (warning.kind === "KIND_IMPUTED" && feature) {
    return t(key, { feature: title(feature), value: withUnit(assumed(feature), feature) });
  }
  if (warning.kind === "KIND_OUT_OF_TRAINING_RANGE" && feature?.numeric && value !== null) {
    return t(key, {
      feature: title(feature),
      value: withUnit(value, feature),
      low: plain(feature.numeric.trainingMin),
      high: withUnit(feature.numeric.trainingMax, feature),
    });
  }
  return warning.message;
}

/**
 * @param {RiskTask} task
 * @param {PatientResult} result
 */
function noveltyOf(task, result) {
  return { novelty: plain(rounded(result.novelty ?? NaN)), threshold: plain(rounded(task.novelty?.threshold ?? NaN)) };
}

/** @param {number} value */
function rounded(value) {
  return Number(value.toPrecision(3));
}

/**
 * @param {RiskTask} task
 * @param {PatientResult} result
 */
function survivalSection(task, result) {
  const { times, probabilities } = result.survival;
  return element(
    "section",
    { class: "patient-survival-section" },
    element("h3", {}, t("patient.survival_title")),
    survivalChart(task, [{ label: t("patient.survival_curve"), result }]),
    task.members > 1 ? element("p", { class: "patient-hint" }, t("patient.survival_note")) : null,
    element(
      "details",
      { class: "patient-numbers" },
      element("summary", {}, t("patient.survival_table")),
      element(
        "table",
        {},
        element("caption", { class: "patient-hint" }, t("patient.survival_caption", { event: task.event })),
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            element("th", { scope: "col" }, t("patient.survival_time_in", { unit: task.timeUnit })),
            element("th", { scope: "col", class: "numeric" }, t("patient.survival_probability")),
          ),
        ),
        element(
          "tbody",
          {},
          ...times.map((time, index) =>
            element(
              "tr",
              {},
              element("td", {}, plain(time)),
              element("td", { class: "numeric" }, element("data", { value: probabilities[index] }, percent(probabilities[index]))),
            ),
          ),
        ),
      ),
    ),
  );
}
