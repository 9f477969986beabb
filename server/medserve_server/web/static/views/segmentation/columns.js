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

/** @typedef {{length: string, area: string, factor: number}} Units  factor: of lengths, from those of the server */

const SIGNIFICANT = 4; // digits of the largest value
const MICROSCOPIC = 0.01; // mm: with smaller pixels, sizes are shown in micrometers

/**
 * Returns the units in which the sizes of a result are shown.
 * @param {import("./requests.js").SegmentResult} result
 * @returns {Units}
 */
export function unitsOf({ pixelSpacing }) {
  if (!pixelSpacing) return { length: "px", area: "px", factor: 1 };
  if (pixelSpacing.rowMm < MICROSCOPIC) return { length: "µm", area: "µm²", factor: 1000 };
  return { length: "mm", area: "mm²", factor: 1 };
}

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
 * Returns the area of a label with its unit.
 * @param {import("./requests.js").LabelResult} label
 * @param {Units} units
 */
export function areaText({ areaPx, areaMm2 }, { area, factor }) {
  if (areaMm2 === undefined) return `${number(areaPx)} ${area}`;
  const value = areaMm2 * factor ** 2;
  return `${decimalFormat([value])(value)} ${area}`;
}

/**
 * Returns a derived measure with its unit.
 * @param {{value: number, unit: string}} measure
 */
export function measureText({ value, unit }) {
  return `${decimalFormat([value])(value)} ${unit}`;
}

/**
 * Returns the columns of the table of objects; the first is the ID.
 * @param {Item[]} items
 * @param {Units} units
 * @param {boolean} hasLabels  whether there are several labels
 * @returns {Column[]}
 */
export function columnsOf(items, units, hasLabels) {
  /** @type {(header: string, value: (item: Item) => number) => Column} */
  const length = (header, value) => {
    const text = sameDecimals(items, (item) => value(item) * units.factor);
    return { header, numeric: true, unit: units.length, value, text };
  };
  const label = (/** @type {Item} */ item) => item.label;
  const areaInUnit = sameDecimals(items, ({ area }) => area * units.factor ** 2);
  return [
    { header: t("segmentation.column_id"), numeric: true, value: ({ id }) => id, text: ({ id }) => String(id) },
    ...(hasLabels ? [{ header: t("segmentation.label"), numeric: false, value: label, text: label }] : []),
    {
      header: t("segmentation.area"),
      numeric: true,
      unit: units.area,
      value: (item) => item.area,
      text: units.area === "px" ? ({ areaPx }) => number(areaPx) : areaInUnit,
    },
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
