// What the table of files and its CSV file show of each result.

import { percent, t } from "../../language.js";
import { decide } from "./decision.js";

/** @typedef {import("./requests.js").ImageResult} ImageResult */
/** @typedef {import("./decision.js").Point} Point */

/**
 * The probability of the operating point's label, which orders images by suspicion; without one, that of the decision.
 * @param {ImageResult} result
 * @param {Point | null} point
 */
function shownProbability({ labels }, point) {
  const positive = labels.find(({ label }) => label === point?.positiveLabel);
  return (positive ?? decide(labels, point)).probability;
}

/**
 * Returns the columns of the table.
 * @param {() => Point | null} currentPoint
 * @returns {import("../files/table.js").Column<ImageResult>[]}
 */
export function tableColumns(currentPoint) {
  const positive = currentPoint()?.positiveLabel;
  const decision = (/** @type {ImageResult} */ { labels }) => decide(labels, currentPoint()).label;
  const probability = (/** @type {ImageResult} */ result) => shownProbability(result, currentPoint());
  return [
    { header: t("image.decision"), text: decision, order: decision },
    {
      header: positive ? t("image.probability_of", { label: positive }) : t("image.probability"),
      text: (result) => percent(probability(result)),
      order: probability,
      numeric: true,
    },
    {
      header: t("image.column_uncertainty"),
      text: ({ uncertainty }) => (uncertainty === undefined ? "" : percent(uncertainty)),
      order: ({ uncertainty }) => uncertainty ?? -1,
      numeric: true,
    },
  ];
}

/**
 * Returns the names of the columns of the CSV file; there is one for each label.
 * @param {string[]} labels
 */
export function csvNames(labels) {
  const probabilities = labels.map((label) => `probability_${label}`);
  return ["decision", "operating_point", "threshold", ...probabilities, "uncertainty", "novelty"];
}

/**
 * Returns the values of these columns.
 * @param {ImageResult} result
 * @param {string[]} labels
 * @param {Point | null} point
 */
export function csvValues(result, labels, point) {
  const probability = (/** @type {string} */ name) =>
    result.labels.find(({ label }) => label === name)?.probability ?? null;
  return [
    decide(result.labels, point).label,
    point?.name ?? null,
    point?.threshold ?? null,
    ...labels.map(probability),
    result.uncertainty ?? null,
    result.novelty ?? null,
  ];
}
