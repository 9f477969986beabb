/** The what-if curve of one feature: the risk at each of its values, the other features unchanged. */

import { bars, line } from "../../charts.js";
import { percent, t } from "../../language.js";
import { title } from "./features.js";
import { nearest } from "./scale.js";

/** @typedef {import("./features.js").Feature} Feature */
/** @typedef {import("./result.js").PatientResult} PatientResult */
/** @typedef {{value: number | string, risk: number}[]} Curve */

const AXIS_ENDS = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1];

/**
 * Returns the curve in a result.
 *
 * @param {PatientResult} result
 * @returns {Curve}
 */
export function curveOf(result) {
  return (result.whatIf?.points ?? []).map(({ value, risk }) => ({ value: value.category ?? value.number ?? 0, risk }));
}

/**
 * Returns the risk at a value of the curve; null if it is not one of its values, as the entered one may be.
 *
 * @param {Curve} curve
 * @param {number | string} value
 */
export function riskAt(curve, value) {
  if (typeof value === "string") {
    return curve.find((point) => point.value === value)?.risk ?? null;
  }
  const values = curve.map((point) => Number(point.value));
  const index = nearest(values, value);
  const tolerance = 1e-6 * (values[values.length - 1] - values[0]);
  return Math.abs(values[index] - value) <= tolerance ? curve[index].risk : null;
}

/**
 * Returns the curve as a chart, with a mark at a value.
 *
 * @param {Feature} feature
 * @param {Curve} curve
 * @param {number | string} value
 * @param {string} horizon
 * @param {number} entered the risk with the entered values
 */
export function curveChart(feature, curve, value, horizon, entered) {
  const highest = Math.max(entered, ...curve.map(({ risk }) => risk));
  const max = AXIS_ENDS.find((end) => end >= highest) ?? 1;
  const label = t("patient.what_if_risk", { horizon });
  if (typeof value === "string") {
    const items = curve.map((point) => ({
      label: String(point.value),
      value: point.risk,
      highlighted: point.value === value,
    }));
    return bars({ items, max, format: percent, label: `${label}; ${title(feature)}` });
  }
  return line({
    x: curve.map((point) => Number(point.value)),
    series: [{ label, y: curve.map(({ risk }) => risk) }],
    xLabel: feature.unit ? `${title(feature)} (${feature.unit})` : title(feature),
    yLabel: label,
    yMax: max,
    format: (share) => percent(share, 0),
    marker: value,
  });
}
