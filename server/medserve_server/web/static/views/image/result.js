// The decision, the probabilities and the warnings of one image.

import { bars } from "../../charts.js";
import { element } from "../../dom.js";
import { hasText, number, percent, t } from "../../language.js";
import { decide } from "./decision.js";

/** @typedef {import("./requests.js").ImageResult} ImageResult */
/** @typedef {import("./decision.js").Point} Point */
/** @typedef {import("./decision.js").Task} Task */

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

/**
 * Returns the warnings in words, each with the server's message.
 * @param {ImageResult} result
 */
export function warnings({ warnings: found }) {
  if (!found.length) return element("p", { class: "muted" }, t("image.no_warnings"));
  const items = found.map(({ kind, message }) =>
    element(
      "li",
      {},
      element("strong", {}, t("image.warning", { kind: warningName(kind) })),
      " ",
      element("span", { lang: "en" }, message),
    ),
  );
  return element(
    "section",
    { class: "image-warnings" },
    element("h3", {}, t("image.warnings")),
    element("ul", {}, ...items),
  );
}

/**
 * Returns the name of a kind of warning; a general one for kinds of newer servers.
 * @param {string} kind
 */
export function warningName(kind) {
  const key = `image.${kind}`;
  return t(hasText(key) ? key : "image.KIND_UNSPECIFIED");
}

/**
 * Returns further values of a result; null if there are none.
 * @param {ImageResult} result
 * @param {Task | null} task
 */
export function furtherValues({ novelty, sopInstanceUid }, task) {
  const values = [
    ...(novelty === undefined ? [] : [{ name: t("image.novelty"), text: noveltyText(novelty, task?.novelty) }]),
    ...(sopInstanceUid === undefined ? [] : [{ name: t("image.sop_instance_uid"), text: sopInstanceUid }]),
  ];
  if (!values.length) return null;
  return element(
    "dl",
    { class: "image-further" },
    ...values.flatMap(({ name, text }) => [element("dt", {}, name), element("dd", {}, text)]),
  );
}

/**
 * @param {number} novelty
 * @param {Task["novelty"]} measured
 */
function noveltyText(novelty, measured) {
  const value = number(novelty, 2);
  return measured ? t("image.novelty_threshold", { value, threshold: number(measured.threshold, 2) }) : value;
}
