// What the table of files and the CSV files show of each result.

import { number, t } from "../../language.js";
import { areaText } from "./columns.js";

/** @typedef {import("./requests.js").SegmentResult} SegmentResult */
/** @typedef {import("./requests.js").Task} Task */

/**
 * Returns the columns of the table of files: count and area, or count and measures, of each label.
 * @param {Task} task
 * @returns {import("../files/table.js").Column<SegmentResult>[]}
 */
export function tableColumns(task) {
  return task.labels.flatMap(({ name, largestOnly }, index) => {
    const prefix = task.labels.length > 1 ? `${name}: ` : "";
    const column = (
      /** @type {string} */ header,
      /** @type {(label: import("./requests.js").LabelResult) => string} */ text,
      /** @type {(label: import("./requests.js").LabelResult) => number} */ order,
    ) => ({
      header: prefix + header,
      text: (/** @type {SegmentResult} */ { labels }) => text(labels[index]),
      order: (/** @type {SegmentResult} */ { labels }) => order(labels[index]),
      numeric: true,
    });
    return [
      ...(largestOnly ? [] : [column(t("segmentation.count"), ({ count }) => number(count), ({ count }) => count)]),
      column(t("segmentation.area"), areaText, ({ areaPx }) => areaPx),
    ];
  });
}

/**
 * Returns the names of the columns of the CSV file of all results.
 * @param {Task} task
 */
export function csvNames(task) {
  const columns = ["count", "area_px", "area_mm2", "area_share"];
  return [
    ...task.labels.flatMap(({ name }) => columns.map((column) => `${name}_${column}`)),
    ...["row_mm", "column_mm", "uncertainty", "novelty"],
  ];
}

/**
 * Returns the values of these columns.
 * @param {SegmentResult} result
 */
export function csvValues({ labels, pixelSpacing, uncertainty, novelty }) {
  return [
    ...labels.flatMap(({ count, areaPx, areaMm2, areaShare }) => [count, areaPx, areaMm2 ?? null, areaShare]),
    pixelSpacing?.rowMm ?? null,
    pixelSpacing?.columnMm ?? null,
    uncertainty ?? null,
    novelty ?? null,
  ];
}

/**
 * Returns the rows of the CSV file of objects, with numbers as the server sent them.
 * @param {import("./requests.js").Entry} entry
 * @param {import("./items.js").Item[]} items
 * @param {import("./columns.js").Column[]} columns
 */
export function objectRows({ file, resultFrame }, items, columns) {
  const own = columns.filter(({ name }) => name !== "label");
  const place = ["centroid_x_px", "centroid_y_px", "left", "top", "width", "height"];
  return [
    ["file", "frame", "label", ...own.map(({ name }) => name), ...place],
    ...items.map((item) => [
      file.name,
      resultFrame,
      item.label,
      ...own.map(({ value }) => value(item)),
      item.centroidX,
      item.centroidY,
      ...[item.box.left, item.box.top, item.box.width, item.box.height],
    ]),
  ];
}
