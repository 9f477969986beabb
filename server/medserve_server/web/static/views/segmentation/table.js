// What the table of files shows of each result.

import { number, t } from "../../language.js";
import { areaText, measureText, unitsOf } from "./columns.js";

/** @typedef {import("./requests.js").SegmentResult} SegmentResult */
/** @typedef {import("./requests.js").LabelResult} LabelResult */

/**
 * Returns the columns of the table: measures, count and area of each label.
 * @param {import("./requests.js").Task} task
 * @returns {import("../files/table.js").Column<SegmentResult>[]}
 */
export function tableColumns({ labels }) {
  return labels.flatMap(({ name, largestOnly, measures }, index) => {
    const prefix = labels.length > 1 ? `${name}: ` : "";
    const column = (
      /** @type {string} */ header,
      /** @type {(label: LabelResult, result: SegmentResult) => string} */ text,
      /** @type {(label: LabelResult) => number} */ order,
    ) => ({
      header: prefix + header,
      text: (/** @type {SegmentResult} */ result) => text(result.labels[index], result),
      order: (/** @type {SegmentResult} */ result) => order(result.labels[index]),
      numeric: true,
    });
    const measured = measures.map((measure, at) =>
      column(
        measure.name,
        (label) => (label.measures[at] ? measureText(label.measures[at]) : ""),
        (label) => label.measures[at]?.value ?? -1,
      ),
    );
    const count = column(t("segmentation.count"), (label) => number(label.count), (label) => label.count);
    const area = column(
      t("segmentation.area"),
      (label, result) => areaText(label, unitsOf(result)),
      ({ areaPx }) => areaPx,
    );
    return [...measured, ...(largestOnly ? [] : [count]), area];
  });
}
