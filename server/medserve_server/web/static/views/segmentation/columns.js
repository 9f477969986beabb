// The sizes of objects: their names, units and decimal places.

import { number, percent, t } from "../../language.js";

/** @typedef {import("./items.js").Item} Item */
/**
 * @typedef {object} Column
 * @property {string} name  in the CSV file
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
 * Returns the columns of a table of objects.
 * @param {Item[]} items
 * @param {boolean} inMm  whether the pixel spacing is known
 * @param {boolean} hasLabels  whether there are several labels
 * @returns {Column[]}
 */
export function columnsOf(items, inMm, hasLabels) {
  const unit = inMm ? "mm" : "px";
  /** @type {(name: string, header: string, key: "equivalentDiameter" | "majorAxis" | "minorAxis" | "perimeter") => Column} */
  const length = (name, header, key) => {
    const format = decimalFormat(items.map((item) => item[key]));
    return { name: `${name}_${unit}`, header, unit, value: (item) => item[key], text: (item) => format(item[key]) };
  };
  const area = inMm ? decimalFormat(items.map((item) => item.area)) : number;
  return [
    { name: "id", header: t("segmentation.column_id"), value: ({ id }) => id, text: ({ id }) => String(id) },
    ...(hasLabels ? [labelColumn()] : []),
    {
      name: inMm ? "area_mm2" : "area_px",
      header: t("segmentation.area"),
      unit: inMm ? "mm²" : "px",
      value: (item) => item.area,
      text: (item) => area(item.area),
    },
    length("equivalent_diameter", t("segmentation.column_diameter"), "equivalentDiameter"),
    length("major_axis", t("segmentation.column_major"), "majorAxis"),
    length("minor_axis", t("segmentation.column_minor"), "minorAxis"),
    {
      name: "circularity",
      header: t("segmentation.column_circularity"),
      value: (item) => item.circularity,
      text: (item) => number(item.circularity, 2),
    },
    length("perimeter", t("segmentation.column_perimeter"), "perimeter"),
    {
      name: "mean_probability",
      header: t("segmentation.column_probability"),
      value: (item) => item.meanProbability,
      text: (item) => percent(item.meanProbability),
    },
    {
      name: "touches_border",
      header: t("segmentation.column_border"),
      value: (item) => Number(item.touchesBorder),
      text: (item) => (item.touchesBorder ? t("segmentation.yes") : ""),
    },
  ];
}

/** @returns {Column} */
function labelColumn() {
  const label = (/** @type {Item} */ item) => item.label;
  return { name: "label", header: t("segmentation.label"), value: label, text: label };
}
