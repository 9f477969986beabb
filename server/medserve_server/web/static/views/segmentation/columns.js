// The sizes of objects: their names, units and decimal places.

import { number, percent, t } from "../../language.js";

/** @typedef {import("./items.js").Item} Item */
/**
 * @typedef {object} Column
 * @property {boolean} numeric
 * @property {string} header
 * @property {string} [unit]
 * @property {(item: Item) => number | string} value
 * @property {(item: Item) => string} text
 */

const SIGNIFICANT = 4; // digits of the largest value

/**
 * Returns a format with the same number of decimal places for all values.
 * @param {number[]} values
 */
export function decimalFormat(values) {
  const largest = values.reduce((one, other) => Math.max(one, other), 0);
  const digits = largest > 0 ? SIGNIFICANT - 1 - Math.floor(Math.log10(largest)) : 0;
  const places = Math.min(Math.max(digits, 0), 8);
  return (/** @type {number} */ value) => number(value, places);
}

/**
 * Returns an area in square millimeters, or in pixels if the pixel spacing is not known.
 * @param {import("./requests.js").LabelResult} label
 */
export function areaText({ areaPx, areaMm2 }) {
  if (areaMm2 === undefined) return t("segmentation.in_px", { value: number(areaPx) });
  return t("segmentation.in_mm2", { value: decimalFormat([areaMm2])(areaMm2) });
}

/**
 * Returns a derived measure with its unit.
 * @param {{value: number, unit: string}} measure
 */
export function measureText({ value, unit }) {
  return t(unit === "mm" ? "segmentation.in_mm" : "segmentation.in_px", { value: decimalFormat([value])(value) });
}

/**
 * Returns the columns of the table of objects; the first is the ID.
 * @param {Item[]} items
 * @param {"mm" | "px"} unit  of lengths
 * @param {boolean} hasLabels  whether there are several labels
 * @returns {Column[]}
 */
export function columnsOf(items, unit, hasLabels) {
  /** @type {(header: string, value: (item: Item) => number) => Column} */
  const length = (header, value) => ({ header, numeric: true, unit, value, text: sameDecimals(items, value) });
  const label = (/** @type {Item} */ item) => item.label;
  const area = (/** @type {Item} */ item) => item.area;
  return [
    { header: t("segmentation.column_id"), numeric: true, value: ({ id }) => id, text: ({ id }) => String(id) },
    ...(hasLabels ? [{ header: t("segmentation.label"), numeric: false, value: label, text: label }] : []),
    unit === "mm"
      ? { header: t("segmentation.area"), numeric: true, unit: "mm²", value: area, text: sameDecimals(items, area) }
      : { header: t("segmentation.area"), numeric: true, unit, value: area, text: (item) => number(item.areaPx) },
    length(t("segmentation.column_diameter"), (item) => item.equivalentDiameter),
    length(t("segmentation.column_major"), (item) => item.majorAxis),
    length(t("segmentation.column_minor"), (item) => item.minorAxis),
    {
      header: t("segmentation.column_circularity"),
      numeric: true,
      value: (item) => item.circularity,
      text: (item) => number(item.circularity, 2),
    },
    length(t("segmentation.column_perimeter"), (item) => item.perimeter),
    {
      header: t("segmentation.column_probability"),
      numeric: true,
      value: (item) => item.meanProbability,
      text: (item) => percent(item.meanProbability),
    },
    {
      header: t("segmentation.column_border"),
      numeric: true,
      value: (item) => Number(item.touchesBorder),
      text: (item) => (item.touchesBorder ? t("segmentation.yes") : ""),
    },
  ];
}

/**
 * Returns a text of a size of objects, with the same number of decimal places for all of them.
 * @param {Item[]} items
 * @param {(item: Item) => number} value
 */
function sameDecimals(items, value) {
  const format = decimalFormat(items.map(value));
  return (/** @type {Item} */ item) => format(value(item));
}
