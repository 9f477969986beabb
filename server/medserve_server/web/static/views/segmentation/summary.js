// What was found in one image: measures, counts and areas of each label, and where they come from.

import { element } from "../../dom.js";
import { number, percent, t } from "../../language.js";
import { furtherValues, warnings } from "../files/warnings.js";
import { areaText, decimalFormat, measureText, unitsOf } from "./columns.js";
import { swatch } from "./layers.js";

/** @typedef {import("./requests.js").LabelResult} LabelResult */
/** @typedef {import("./requests.js").SegmentResult} SegmentResult */
/** @typedef {import("./requests.js").Task} Task */

const UNFAMILIAR = "KIND_UNFAMILIAR";

/**
 * Returns the warning that the image is unlike the training data, which comes before any figure; null if it is not.
 * @param {SegmentResult} result
 */
export function unfamiliar({ warnings: found }) {
  const warning = found.find(({ kind }) => kind === UNFAMILIAR);
  if (!warning) return null;
  return element(
    "div",
    { class: "error segmentation-unfamiliar" },
    element("p", {}, element("strong", {}, t("segmentation.unfamiliar"))),
    element("p", { lang: "en" }, warning.message),
  );
}

/**
 * Returns the other warnings.
 * @param {SegmentResult} result
 */
export function otherWarnings({ warnings: found }) {
  return warnings({ warnings: found.filter(({ kind }) => kind !== UNFAMILIAR) });
}

/**
 * Returns the figures of each label.
 * @param {SegmentResult} result
 * @param {Task} task
 */
export function figures(result, task) {
  return result.labels.map((label, index) => {
    const counted = !task.labels[index]?.largestOnly;
    return element(
      "section",
      { class: "segmentation-figures" },
      element("h3", {}, swatch(index), label.label),
      ...label.measures.map(measure),
      counted ? count(label) : label.count ? null : element("p", {}, t("segmentation.not_found")),
      figure(
        t("segmentation.area"),
        areaText(label, unitsOf(result)),
        t("segmentation.share", { share: percent(label.areaShare) }),
      ),
    );
  });
}

/**
 * @param {string} name
 * @param {string} value
 * @param {string} note
 */
function figure(name, value, note) {
  return element(
    "div",
    { class: "segmentation-figure" },
    element("p", { class: "muted" }, name),
    element("p", { class: "segmentation-value" }, value),
    note ? element("p", { class: "muted" }, note) : null,
  );
}

/** @param {LabelResult["measures"][number]} measured */
function measure({ name, unit, value, interval }) {
  const format = decimalFormat([value]);
  const limits = interval && { low: format(interval.low), high: format(interval.high), coverage: percent(interval.coverage, 0) };
  return figure(name, measureText({ value, unit }), limits ? t("segmentation.agreement", limits) : "");
}

/** @param {LabelResult} label */
function count({ count: found, countInterval, objects }) {
  const interval = countInterval && {
    low: number(countInterval.low),
    high: number(countInterval.high),
    coverage: percent(countInterval.coverage, 0),
  };
  const notes = [
    ...(interval ? [t("segmentation.count_interval", interval)] : []),
    ...(objects.length < found ? [t("segmentation.listed", { count: number(objects.length) })] : []),
  ];
  return figure(t("segmentation.count"), number(found), notes.join(" "));
}

/**
 * Returns the uncertainty of the image, its pixel spacing, and further values.
 * @param {SegmentResult} result
 * @param {Task} task
 */
export function provenance(result, task) {
  const { width, height, tiles, uncertainty } = result;
  const size = t("segmentation.size_text", { width: number(width), height: number(height) });
  /** @type {[string, string][]} */
  const entries = [
    ...(uncertainty === undefined
      ? []
      : [/** @type {[string, string]} */ ([t("segmentation.uncertainty"), t("segmentation.uncertainty_text", { value: percent(uncertainty) })])]),
    [t("segmentation.spacing"), spacingText(result)],
    [t("segmentation.size"), tiles > 1 ? t("segmentation.size_tiles", { size, tiles: number(tiles) }) : size],
  ];
  return [
    element("dl", {}, ...entries.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)])),
    furtherValues(result, task),
  ];
}

/** @param {SegmentResult} result */
function spacingText({ pixelSpacing }) {
  if (!pixelSpacing) return t("segmentation.spacing_unknown");
  const { rowMm, columnMm, source } = pixelSpacing;
  const format = (/** @type {number} */ distance) => String(Number(distance.toPrecision(6)));
  return t(`segmentation.spacing_from.${source}`, { row: format(rowMm), column: format(columnMm) });
}
