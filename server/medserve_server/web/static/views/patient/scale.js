/** The positions of a what-if slider: round values over the range of the training data. */

/** @typedef {import("./features.js").Feature} Feature */
/** @typedef {{low: number, high: number, values: number[]}} Scale `values` are equidistant from `low` to `high`. */

// Maximum number of intervals; a request may ask for up to 200 values.
const INTERVALS = 100;
const FACTORS = [1, 2, 5, 10];

/**
 * Returns the scale of a numeric feature: the range of the training data, extended to the patient's value.
 *
 * @param {Feature} feature
 * @param {number} value
 * @returns {Scale | null} null if only one value is valid
 */
export function sliderScale(feature, value) {
  const range = feature.numeric;
  if (!range) {
    return null;
  }
  const low = Math.min(range.trainingMin, value);
  const high = Math.max(range.trainingMax, value);
  if (!(low < high)) {
    return null;
  }
  const step = roundStep((high - low) / INTERVALS, range.integer);
  // Multiples of the step, within what is valid.
  const first = Math.floor(low / step) * step >= range.validMin ? Math.floor(low / step) : Math.ceil(low / step);
  const last = Math.ceil(high / step) * step <= range.validMax ? Math.ceil(high / step) : Math.floor(high / step);
  const values = Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
  return values.length < 2 ? null : { low: values[0], high: values[values.length - 1], values };
}

/**
 * Returns the smallest of 1, 2, 5, 10, … times a power of ten that is not below a width.
 *
 * @param {number} width
 * @param {boolean} integer
 */
function roundStep(width, integer) {
  const power = 10 ** Math.floor(Math.log10(width));
  const step = FACTORS.map((factor) => Number((factor * power).toPrecision(12))).find((one) => one >= width * (1 - 1e-9));
  return Math.max(integer ? 1 : 0, step ?? 10 * power);
}

/**
 * @param {number[]} values
 * @param {number} value
 * @returns {number} the index of the nearest value
 */
export function nearest(values, value) {
  return values.reduce((best, one, index) => (Math.abs(one - value) < Math.abs(values[best] - value) ? index : best), 0);
}
