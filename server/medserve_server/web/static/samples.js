/** Differences between samples of a server's counters. */

/**
 * @typedef {object} Sample
 * @property {number} time in seconds
 * @property {number} succeeded
 * @property {number} failed
 * @property {number[]} durations number of requests in each bucket
 *
 * @typedef {object} Step what happened between two samples
 * @property {number} age seconds from its end to the latest sample
 * @property {number} seconds its length
 * @property {number} succeeded
 * @property {number} failed
 * @property {number[]} durations
 */

/** The samples of each process that has answered. With several workers, any of them may answer. */
export class Samples {
  /** @param {number} seconds how long samples are kept */
  constructor(seconds) {
    this.seconds = seconds;
    /** @type {Map<number, Sample[]>} */
    this.kept = new Map();
  }

  /**
   * Adds a sample.
   *
   * @param {number} time in seconds
   * @param {any} status answer of /v1/status
   */
  add(time, status) {
    const sample = { time, succeeded: 0, failed: 0, durations: status.durationBounds.map(() => 0).concat(0) };
    for (const model of status.models) {
      sample.succeeded += model.succeeded;
      sample.failed += model.failed;
      sample.durations = sample.durations.map((/** @type {number} */ count, /** @type {number} */ index) => count + model.durations[index]);
    }
    const earlier = this.kept.get(status.process) ?? [];
    this.kept.set(status.process, [...earlier.filter((other) => time - other.time <= this.seconds), sample]);
  }

  /**
   * Returns the steps between the samples of a process, oldest first.
   *
   * @param {number} process
   * @returns {Step[]}
   */
  steps(process) {
    const kept = this.kept.get(process) ?? [];
    const latest = kept[kept.length - 1]?.time ?? 0;
    return kept.slice(1).map((sample, index) => difference(kept[index], sample, latest));
  }

  /**
   * Returns the sum over the last seconds.
   *
   * @param {number} process
   * @param {number} seconds
   * @returns {Step}
   */
  total(process, seconds) {
    const kept = this.kept.get(process) ?? [];
    const latest = kept[kept.length - 1];
    const first = kept.find((sample) => latest.time - sample.time <= seconds);
    return first ? difference(first, latest, latest.time) : { age: 0, seconds: 0, succeeded: 0, failed: 0, durations: [] };
  }
}

/**
 * Returns what happened between two samples. A counter that decreased belongs to a model that was unloaded; it counts
 * as unchanged.
 *
 * @param {Sample} before
 * @param {Sample} after
 * @param {number} latest
 */
function difference(before, after, latest) {
  return {
    age: latest - after.time,
    seconds: after.time - before.time,
    succeeded: Math.max(0, after.succeeded - before.succeeded),
    failed: Math.max(0, after.failed - before.failed),
    durations: after.durations.map((count, index) => Math.max(0, count - before.durations[index])),
  };
}

/**
 * Returns a quantile of durations in seconds, interpolated within its bucket; NaN without any.
 *
 * @param {number[]} bounds upper bounds of the buckets but the last
 * @param {number[]} counts
 * @param {number} fraction e.g. 0.5 for the median
 */
export function durationQuantile(bounds, counts, fraction) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let left = fraction * total;
  for (let index = 0; index < counts.length && total > 0; index++) {
    const low = bounds[index - 1] ?? 0;
    if (left <= counts[index] && counts[index] > 0) {
      return low + ((bounds[index] ?? low) - low) * (left / counts[index]);
    }
    left -= counts[index];
  }
  return NaN;
}
