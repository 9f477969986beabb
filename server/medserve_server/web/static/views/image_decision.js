// Decisions at a threshold, and the sensitivity and specificity that a threshold has.

/** @typedef {import("./image_requests.js").LabelProbability} LabelProbability */
/**
 * @typedef {object} NamedPoint  an OperatingPoint of the manifest
 * @property {string} name
 * @property {string} positiveLabel
 * @property {number} threshold
 * @property {number} sensitivity
 * @property {number} specificity
 * @property {string} chosenOn
 */
/** @typedef {{name: string, positiveLabel: string, threshold: number}} Point  without a name if it was chosen here */
/** @typedef {{threshold: number, sensitivity: number | null, specificity: number | null}} Step */
/**
 * @typedef {object} Task  the manifest's ImageClassificationTask
 * @property {{height: number, width: number, colorSpace: string, crop: string}} input
 * @property {string[]} labels
 * @property {NamedPoint[]} operatingPoints
 * @property {string} defaultOperatingPoint
 * @property {number} members
 * @property {{threshold: number}} [novelty]
 * @property {{height: number, width: number}} [classActivation]
 * @property {{layer: string, channels: number}[]} featureMaps
 */

/**
 * Decides as the server does: at or above the threshold for the positive label, otherwise for the most probable other.
 * @param {LabelProbability[]} labels  most probable first
 * @param {Point | null} point  null decides for the most probable label
 * @returns {LabelProbability}
 */
export function decide(labels, point) {
  const positive = point && labels.find(({ label }) => label === point.positiveLabel);
  if (!positive) return labels[0];
  // The server compares in single precision; JSON contains the shortest decimal of the same number.
  if (Math.fround(positive.probability) >= point.threshold) return positive;
  return labels.find((one) => one !== positive) ?? positive;
}

/**
 * Returns the manifest's default operating point; null if it has none.
 * @param {Task | null} task
 * @returns {Point | null}
 */
export function defaultPoint(task) {
  return task?.operatingPoints.find(({ name }) => name === task.defaultOperatingPoint) ?? null;
}

/**
 * Returns the thresholds that can be chosen, in ascending order, with sensitivity and specificity where the manifest has
 * them: those of the named operating points and of the curve, or hundredths if there is no curve.
 * @param {Task} task
 * @param {string} positive
 * @returns {Step[]}
 */
export function stepsOf(task, positive) {
  const curve = curveOf(task, positive)?.points;
  const unknown = { sensitivity: null, specificity: null };
  const others = curve ?? Array.from({ length: 101 }, (_, index) => ({ threshold: index / 100, ...unknown }));
  const named = task.operatingPoints.filter(({ positiveLabel }) => positiveLabel === positive);
  const steps = new Map([...others, ...named].map((one) => [one.threshold, one]));
  return [...steps.values()].sort((one, other) => one.threshold - other.threshold);
}

/**
 * Returns the curve of a label; null for files that were written before curves existed.
 * @param {Task} task
 * @param {string} positive
 * @returns {{points: Step[], split: string} | null}
 */
export function curveOf(task, positive) {
  return null;
}
