/** The features of a patient: parsing, ranges, and the texts about them. Cells are read by the rules of docs/csv.md. */

import { t } from "../../language.js";

/**
 * @typedef {object} NumericRange
 * @property {number} validMin values outside the valid range are refused
 * @property {number} validMax
 * @property {number} trainingMin values outside the range of the training data get a warning
 * @property {number} trainingMax
 * @property {boolean} integer
 */
/**
 * @typedef {object} Feature A feature of the manifest; exactly one of `numeric` and `categorical` is set.
 * @property {string} name
 * @property {string} description
 * @property {string} unit
 * @property {NumericRange} [numeric]
 * @property {{names: string[]}} [categorical]
 * @property {boolean} [required]
 * @property {number} [imputedAs] the number, or index of the category, that replaces a missing value
 */
/** @typedef {{label: string, time: number}} Horizon */
/** @typedef {{label: string, riskBelow: number}} RiskGroup */
/**
 * @typedef {object} RiskTask The manifest of a model with the task patient_risk.
 * @property {Feature[]} features
 * @property {string} event
 * @property {string} timeUnit
 * @property {Horizon[]} horizons
 * @property {RiskGroup[]} riskGroups
 * @property {string} referenceHorizon
 * @property {unknown[]} background
 * @property {number} members
 * @property {{threshold: number}} [novelty]
 */
/** @typedef {number | string | null} Value A number, the name of a category, or null if missing. */
/** @typedef {Map<string, Value>} Values The values of a patient by name of the feature. */
/** @typedef {{kind: "error" | "warning", text: string}} Remark */

const NUMBER = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/;
const GROUPED = /^[+-]?[0-9]{1,3}(?:[ ,.'_\u2019\u00a0\u202f][0-9]{3})+(?:[.,][0-9]+)?$/;
const DECIMAL_COMMA = /^[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?$/;
// Maximum length of a cell quoted in a message.
const SHOWN = 64;

/** A cell that is not a value of its feature; the message describes the cell and what is expected. */
export class CellError extends Error {}

/**
 * Parses a cell; only an empty one is a missing value.
 * @param {string} cell
 * @param {Feature} feature
 * @param {string} [hint] ends the message about a cell that is not a number or not a category
 * @returns {Value}
 * @throws {CellError} the cell is not a number or not a category of the feature
 */
export function parseCell(cell, feature, hint) {
  const text = cell.trim();
  if (!text) {
    return null;
  }
  const ending = hint ?? t(feature.required ? "patient.cell_required_hint" : "patient.cell_missing_hint");
  if (!feature.categorical) {
    return parseNumber(text, ending);
  }
  if (!feature.categorical.names.includes(text)) {
    const names = feature.categorical.names.join(", ");
    throw new CellError(t("patient.cell_not_category", { value: quoted(text), names, hint: ending }));
  }
  return text;
}

/**
 * @param {string} text
 * @param {string} hint
 * @returns {number}
 */
function parseNumber(text, hint) {
  const value = quoted(text);
  if (NUMBER.test(text)) {
    const number = Number(text);
    if (Number.isFinite(number)) {
      return number;
    }
    throw new CellError(t("patient.cell_too_large", { value }));
  }
  if (GROUPED.test(text)) {
    throw new CellError(t("patient.cell_grouped", { value }));
  }
  if (DECIMAL_COMMA.test(text)) {
    throw new CellError(t("patient.cell_decimal_comma", { value }));
  }
  throw new CellError(t("patient.cell_not_number", { value, hint }));
}

/**
 * Returns a cell between quotes, at most 64 characters of it, with control characters escaped.
 * @param {string} text
 * @returns {string}
 */
export function quoted(text) {
  const start = [...text].slice(0, SHOWN).join("");
  const quote = start.includes("'") && !start.includes('"') ? '"' : "'";
  const escaped = start
    .replaceAll("\\", "\\\\")
    .replaceAll(quote, `\\${quote}`)
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r")
    .replaceAll("\t", "\\t")
    .replace(/[\u0000-\u001f\u007f-\u009f]/g, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`);
  return `${quote}${escaped}${quote}`;
}

/**
 * Checks a value against the ranges of its feature, as the server does.
 * @param {Value} value
 * @param {Feature} feature
 * @returns {Remark | null} an error: the server refuses the value; a warning: the result has a warning
 */
export function checkValue(value, feature) {
  if (value === null) {
    return feature.required ? { kind: "error", text: t("patient.value_required", { expected: expected(feature) }) } : null;
  }
  const range = feature.numeric;
  if (!range || typeof value !== "number") {
    return null;
  }
  const valid = range.validMin <= value && value <= range.validMax && (!range.integer || Number.isInteger(value));
  if (!valid) {
    return { kind: "error", text: t("patient.value_invalid", { value: plain(value), expected: expected(feature) }) };
  }
  if (value < range.trainingMin || value > range.trainingMax) {
    const text = t("patient.value_outside_training", {
      value: withUnit(value, feature),
      low: plain(range.trainingMin),
      high: withUnit(range.trainingMax, feature),
    });
    return { kind: "warning", text };
  }
  return null;
}

/**
 * @param {Feature} feature
 * @returns {string} e.g. "a whole number from 1 to 60 nodes"
 */
function expected(feature) {
  if (feature.categorical) {
    return t("patient.expected_category", { names: feature.categorical.names.join(", ") });
  }
  const range = /** @type {NumericRange} */ (feature.numeric);
  return t(range.integer ? "patient.expected_integer" : "patient.expected_number", {
    low: plain(range.validMin),
    high: withUnit(range.validMax, feature),
  });
}

/**
 * Returns the value that replaces a missing one; null for a required feature.
 * @param {Feature} feature
 * @returns {Value}
 */
export function assumed(feature) {
  if (feature.imputedAs === undefined) {
    return null;
  }
  return feature.categorical ? feature.categorical.names[Math.round(feature.imputedAs)] : feature.imputedAs;
}

/**
 * @param {number} value
 * @returns {string} up to six significant digits, without thousands separators, as the form accepts it
 */
export function plain(value) {
  return String(Number(value.toPrecision(6)));
}

/**
 * @param {Value} value not null
 * @param {Feature} feature
 * @returns {string} e.g. "25 mm"
 */
export function withUnit(value, feature) {
  const text = typeof value === "number" ? plain(value) : String(value);
  return feature.unit ? `${text} ${feature.unit}` : text;
}

/**
 * Describes a value for tables, with what replaces a missing one.
 * @param {Value} value
 * @param {Feature} feature
 * @returns {string}
 */
export function described(value, feature) {
  return value === null
    ? t("patient.value_assumed", { value: withUnit(assumed(feature), feature) })
    : withUnit(value, feature);
}

/**
 * @param {Feature} feature
 * @returns {string} its description, or else its name
 */
export function title(feature) {
  return feature.description || feature.name;
}

/**
 * Returns the Patient of a request; missing values are left out.
 * @param {Values} values
 * @returns {{features: {key: string, value: {number: number} | {category: string}}[]}}
 */
export function toPatient(values) {
  const features = [];
  for (const [key, value] of values) {
    if (value !== null) {
      features.push({ key, value: typeof value === "number" ? { number: value } : { category: value } });
    }
  }
  return { features };
}
