// Decisions at a threshold, and the sensitivity and specificity that a threshold has.

/** @typedef {import("./requests.js").LabelProbability} LabelProbability */
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
 * @property {Curve[]} [thresholdCurves]
 */
/**
 * @typedef {object} Curve  a ThresholdCurve of the manifest
 * @property {string} positiveLabel
 * @property {string} split
 * @property {number[]} thresholds
 * @property {number[]} sensitivities
 * @property {number[]} specificities
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
 * Returns the thresholds that can be chosen, in ascending order, with sensitivity and specificity where the manifest
 * has them: those of the named operating points and of the curve, or hundredths if there is no curve.
 * @param {Task} task
 * @param {string} positive
 * @returns {Step[]}
 */
export function stepsOf(task, positive) {
  const unknown = { sensitivity: null, specificity: null };
  const hundredths = Array.from({ length: 101 }, (_, index) => ({ threshold: index / 100, ...unknown }));
  const others = curvesOf(task, positive)[0]?.steps ?? hundredths;
  const named = task.operatingPoints.filter(({ positiveLabel }) => positiveLabel === positive);
  const steps = new Map([...others, ...named].map((one) => [one.threshold, one]));
  return [...steps.values()].sort((one, other) => one.threshold - other.threshold);
}

/**
 * Returns the curves of a label, first that of the split on which its operating points were chosen; files written
 * before curves existed have none.
 * @param {Task} task
 * @param {string} positive
 * @returns {{split: string, steps: Step[]}[]}
 */
export function curvesOf({ operatingPoints, thresholdCurves = [] }, positive) {
  const chosenOn = operatingPoints.find(({ positiveLabel }) => positiveLabel === positive)?.chosenOn;
  return thresholdCurves
    .filter(({ positiveLabel }) => positiveLabel === positive)
    .sort((one, other) => Number(other.split === chosenOn) - Number(one.split === chosenOn))
    .map(({ split, thresholds, sensitivities, specificities }) => ({
      split,
      steps: thresholds.map((threshold, index) => ({
        threshold,
        sensitivity: sensitivities[index],
        specificity: specificities[index],
      })),
    }));
}

/**
 * Returns the step of a curve that is nearest to a threshold.
 * @param {Step[]} steps
 * @param {number} threshold
 */
export function nearestStep(steps, threshold) {
  const distance = (/** @type {Step} */ step) => Math.abs(step.threshold - threshold);
  return steps.reduce((best, step) => (distance(step) < distance(best) ? step : best));
}
