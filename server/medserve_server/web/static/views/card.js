/** The card of a model: what it is for, how good it is, and where it comes from. */

import { element } from "../dom.js";
import { hasText, number, percent, t } from "../language.js";

/** @typedef {import("../dom.js").Child} Child */

/**
 * Returns the card of a model.
 *
 * @param {any} manifest
 * @param {string} sha256 of the model file
 */
export function card(manifest, sha256) {
  return element(
    "div",
    { class: "model-card" },
    ...section("card.about", about(manifest)),
    ...section("card.quality", evaluationTable(manifest.evaluations.filter((/** @type {any} */ entry) => !entry.subgroup))),
    ...section("card.subgroups", subgroups(manifest)),
    ...section("card.operating_points", operatingPoints(manifest.imageClassification)),
    ...section("card.quantization", quantization(manifest.quantization)),
    ...section("card.origin", origin(manifest, sha256)),
  );
}

/**
 * @param {string} key
 * @param {Child[]} content
 */
function section(key, content) {
  return content.length ? [element("h3", {}, t(key)), ...content] : [];
}

/**
 * Returns a list of names and values; entries without a value are left out.
 *
 * @param {[string, string | undefined][]} entries
 */
export function definitions(entries) {
  const shown = entries.filter(([, value]) => value);
  return element("dl", {}, ...shown.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value ?? "")]));
}

/**
 * Returns a table that scrolls by itself. The first column names the rows.
 *
 * @param {string} label name for screen readers
 * @param {string[]} header
 * @param {Child[][]} rows
 */
export function table(label, header, rows) {
  return element(
    "div",
    { class: "table-scroll", tabindex: "0", role: "group", "aria-label": label },
    element(
      "table",
      {},
      element("caption", { class: "visually-hidden" }, label),
      element("thead", {}, element("tr", {}, ...header.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map(tableRow)),
    ),
  );
}

/** @param {Child[]} cells */
function tableRow([name, ...cells]) {
  return element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((cell) => element("td", {}, cell)));
}

/** @param {any} manifest */
function about(manifest) {
  return [
    definitions([
      [t("card.description"), manifest.description],
      [t("card.intended_use"), manifest.intendedUse],
      [t("card.license"), manifest.license],
      ...imageEntries(manifest.imageClassification),
      ...segmentationEntries(manifest.imageSegmentation),
      ...riskEntries(manifest.patientRisk),
    ]),
  ];
}

/**
 * @param {any} task
 * @returns {[string, string | undefined][]}
 */
function imageEntries(task) {
  if (!task) return [];
  const { input } = task;
  return [
    [t("card.input"), input && t(`card.image.${input.colorSpace}`, { width: input.width, height: input.height })],
    [t("card.labels"), task.labels.join(", ")],
    [t("card.members"), task.members > 1 ? number(task.members) : ""],
    [t("card.novelty"), task.novelty?.method],
    [t("card.calibration"), task.calibration && calibration(task.calibration)],
  ];
}

/**
 * @param {any} task
 * @returns {[string, string | undefined][]}
 */
function segmentationEntries(task) {
  if (!task) return [];
  const { fixed, tiling, colorSpace } = task.input;
  const input = fixed
    ? t(`card.image.${colorSpace}`, { width: fixed.width, height: fixed.height })
    : t(`card.tiled.${colorSpace}`, { side: tiling.maxSide });
  return [
    [t("card.input"), input],
    [t("card.labels"), task.labels.map((/** @type {any} */ label) => label.name).join(", ")],
    [t("card.members"), task.members > 1 ? number(task.members) : ""],
    [t("card.novelty"), task.novelty?.method],
  ];
}

/** @param {any} calibrated */
function calibration({ method, chosenOn, errorBefore, errorAfter }) {
  return t("card.calibration_text", { method, chosenOn, before: decimal(errorBefore), after: decimal(errorAfter) });
}

/**
 * @param {any} task
 * @returns {[string, string | undefined][]}
 */
function riskEntries(task) {
  if (!task) return [];
  return [
    [t("card.event"), task.event],
    [t("card.features"), task.features.map((/** @type {any} */ feature) => feature.description || feature.name).join(", ")],
    [t("card.horizons"), task.horizons.map((/** @type {any} */ horizon) => horizon.label).join(", ")],
    [t("card.risk_groups"), riskGroups(task)],
    [t("card.members"), task.members > 1 ? number(task.members) : ""],
    [t("card.novelty"), task.novelty?.method],
  ];
}

/** @param {any} task */
function riskGroups({ riskGroups: groups, referenceHorizon }) {
  if (!groups.length) return "";
  const named = groups.map((/** @type {any} */ group) =>
    group.riskBelow > 1 ? group.label : t("card.risk_below", { label: group.label, risk: percent(group.riskBelow) }),
  );
  return t("card.risk_groups_text", { groups: named.join(", "), horizon: referenceHorizon });
}

/** @param {any} manifest */
function subgroups({ evaluations }) {
  return evaluationTable(evaluations.filter((/** @type {any} */ entry) => entry.subgroup && entry.metrics.length));
}

/** @param {any[]} entries */
function evaluationTable(entries) {
  if (!entries.length) return [];
  const names = [...new Set(entries.flatMap((entry) => entry.metrics.map((/** @type {any} */ metric) => metric.name)))];
  const intervals = entries.flatMap((entry) => entry.metrics.map((/** @type {any} */ metric) => metric.interval?.method));
  const methods = [...new Set(intervals.filter(Boolean))].join("; ");
  const data = [...new Set(entries.map((entry) => entry.data))].join("; ");
  const header = entries.map(({ split, subgroup, size }) =>
    t("card.evaluation", { split: subgroup ? `${subgroup}, ${split}` : split, size: number(Number(size)) }),
  );
  const rows = names.map((name) => [metricTitle(name), ...entries.map((entry) => metricCell(entry, name))]);
  return [
    table(t(entries[0].subgroup ? "card.subgroups" : "card.quality"), [t("card.metric"), ...header], rows),
    element("p", { class: "muted" }, t("card.data", { data })),
    methods ? element("p", { class: "muted" }, t("card.intervals", { methods })) : null,
  ];
}

/**
 * Returns the title of a metric; its name may end with a time, as in `auroc_5_years`.
 *
 * @param {string} name
 */
export function metricTitle(name) {
  if (hasText(`metric.${name}`)) return t(`metric.${name}`);
  const timed = name.match(/^(.+?)_(\d.*)$/);
  if (timed && hasText(`metric.${timed[1]}`)) {
    return t("metric.at_time", { metric: t(`metric.${timed[1]}`), time: timed[2].replaceAll("_", " ") });
  }
  return name.replaceAll("_", " ");
}

/**
 * @param {any} entry
 * @param {string} name
 */
function metricCell(entry, name) {
  const metric = entry.metrics.find((/** @type {any} */ other) => other.name === name);
  if (!metric) return "–";
  const { value, interval } = metric;
  if (!interval) return decimal(value);
  const range = `[${decimal(interval.low)}, ${decimal(interval.high)}]`;
  return element("span", {}, decimal(value), " ", element("span", { class: "muted interval" }, range));
}

/**
 * Formats a number of a manifest; one that is not finite is a string in JSON.
 *
 * @param {number | string} value
 * @param {number} digits
 */
function decimal(value, digits = 3) {
  return typeof value === "number" ? number(value, digits) : value;
}

/** @param {any} task */
function operatingPoints(task) {
  if (!task?.operatingPoints.length) return [];
  const header = ["name", "label", "threshold", "sensitivity", "specificity", "chosen_on"];
  const rows = task.operatingPoints.map((/** @type {any} */ point) => [
    point.name === task.defaultOperatingPoint ? t("card.default_point", { name: point.name }) : point.name,
    point.positiveLabel,
    decimal(point.threshold),
    decimal(point.sensitivity),
    decimal(point.specificity),
    point.chosenOn,
  ]);
  return [table(t("card.operating_points"), header.map((name) => t(`card.point.${name}`)), rows)];
}

/** @param {any} quantized */
function quantization(quantized) {
  if (!quantized) return [];
  const { method, metric, metricBefore, metricAfter, maxDeviation, speedup, speedupBatch, sourceSha256 } = quantized;
  return [
    definitions([
      [t("card.method"), method],
      [metricTitle(metric), t("card.before_after", { before: decimal(metricBefore, 4), after: decimal(metricAfter, 4) })],
      [t("card.max_deviation"), decimal(maxDeviation, 4)],
      [t("card.speedup"), t("card.speedup_text", { speedup: decimal(speedup, 2), batch: speedupBatch })],
      [t("card.source"), sourceSha256],
    ]),
  ];
}

/**
 * @param {any} manifest
 * @param {string} sha256
 */
function origin({ training, name, schemaVersion }, sha256) {
  const packages = Object.entries(training?.packages ?? {}).map(([key, version]) => `${key} ${version}`);
  return [
    definitions([
      [t("card.data_set"), training?.data],
      [t("card.data_sha256"), training?.dataSha256],
      [t("card.recipe"), training?.recipe],
      [t("card.date"), training?.date],
      [t("card.seed"), training?.seed],
      [t("card.packages"), packages.sort().join(", ")],
      [t("card.export_deviation"), training && Number(training.exportDeviation).toExponential(1)],
      [t("card.name"), t("card.name_text", { name, schema: schemaVersion })],
      [t("card.sha256"), sha256],
    ]),
  ];
}
