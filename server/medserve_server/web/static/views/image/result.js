// The decision and the probabilities of one image.

import { bars } from "../../charts.js";
import { element } from "../../dom.js";
import { percent, t } from "../../language.js";
import { decide } from "./decision.js";

/** @typedef {import("./requests.js").ImageResult} ImageResult */
/** @typedef {import("./decision.js").Point} Point */

/** Decimal places of a probability and its threshold: the first at which they differ. */
const DIGITS = [1, 2, 3, 4, 5, 6];

/**
 * Returns the decision, with the reason for it.
 * @param {ImageResult} result
 * @param {Point | null} point
 */
export function decision(result, point) {
  const { label, probability } = decide(result.labels, point);
  const positive = result.labels.find((one) => one.label === point?.positiveLabel);
  const reason =
    point && positive
      ? comparison(positive, point, positive.label === label)
      : t("image.most_probable", { probability: percent(probability) });
  return element(
    "div",
    { class: "image-decision" },
    element("p", { class: "image-label" }, label),
    element("p", {}, reason),
  );
}

/**
 * @param {import("./requests.js").LabelProbability} positive
 * @param {Point} point
 * @param {boolean} reached  whether the probability is at or above the threshold
 */
function comparison({ label, probability }, { name, threshold }, reached) {
  const digits = DIGITS.find((count) => percent(probability, count) !== percent(threshold, count));
  return t(reached ? "image.at_or_above" : "image.below", {
    label,
    probability: percent(probability, digits),
    threshold: percent(threshold, digits),
    point: name || t("image.chosen_here"),
  });
}

/**
 * Returns the probabilities as bars and as a table.
 * @param {ImageResult} result
 */
export function probabilities({ labels, uncertainty }) {
  const items = labels.map(({ label, probability }, index) => ({
    label,
    value: probability,
    highlighted: index === 0,
    ...(index === 0 && uncertainty !== undefined ? { spread: uncertainty } : {}),
  }));
  const rows = labels.map(({ label, probability }, index) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, label),
      element("td", { class: "numeric" }, percent(probability)),
      uncertainty === undefined
        ? null
        : element("td", { class: "numeric" }, index === 0 ? t("image.spread", { value: percent(uncertainty) }) : ""),
    ),
  );
  const columns = ["image.label", "image.probability", ...(uncertainty === undefined ? [] : ["image.uncertainty"])];
  return element(
    "section",
    {},
    element("h3", {}, t("image.probabilities")),
    bars({ items, max: 1, format: percent, label: t("image.probabilities") }),
    uncertainty === undefined ? null : element("p", { class: "muted" }, t("image.uncertainty_meaning")),
    element(
      "table",
      { class: "visually-hidden" },
      element("caption", {}, t("image.probabilities")),
      element("thead", {}, element("tr", {}, ...columns.map((key) => element("th", { scope: "col" }, t(key))))),
      element("tbody", {}, ...rows),
    ),
  );
}
