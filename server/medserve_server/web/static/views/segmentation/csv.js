// The CSV files of results and of objects, in the columns of `medserve segment`, with numbers as the server sent them.

/** @typedef {import("./requests.js").SegmentResult} SegmentResult */
/** @typedef {import("./requests.js").LabelResult} LabelResult */
/** @typedef {import("./requests.js").Interval} Interval */
/** @typedef {string | number | null} Cell */

const COUNT = ["count", "count_low", "count_high", "area_px", "area_mm2", "area_share"];
const MEASURE = ["", "_low", "_high", "_unit"];
const OBJECT = [
  ...["file", "frame", "label", "id", "left", "top", "width", "height", "centroid_x", "centroid_y", "area_px", "area"],
  ...["equivalent_diameter", "major_axis", "minor_axis", "perimeter", "circularity", "mean_probability"],
  ...["touches_border", "unit"],
];

/**
 * Returns the names of the columns of the file of results.
 * @param {import("./requests.js").Task} task
 */
export function resultNames({ labels }) {
  return [
    ...["height", "width", "row_mm", "column_mm"],
    ...labels.flatMap(({ name, measures }) => [
      ...COUNT.map((value) => `${value}_${name}`),
      ...measures.flatMap((measure) => MEASURE.map((end) => `${measure.name.replaceAll(" ", "_")}${end}_${name}`)),
    ]),
    ...["uncertainty", "novelty", "tiles"],
  ];
}

/**
 * Returns the values of these columns.
 * @param {SegmentResult} result
 * @param {import("./requests.js").Task} task
 */
export function resultValues({ height, width, pixelSpacing, labels, uncertainty, novelty, tiles }, task) {
  return [
    ...[height, width, pixelSpacing?.rowMm ?? null, pixelSpacing?.columnMm ?? null],
    ...labels.flatMap((label, index) => [...countValues(label), ...measureValues(label, task.labels[index].measures.length)]),
    ...[uncertainty ?? null, novelty ?? null, tiles],
  ];
}

/**
 * @param {LabelResult} label
 * @returns {Cell[]}
 */
function countValues({ count, countInterval, areaPx, areaMm2, areaShare }) {
  return [count, ...bounds(countInterval), areaPx, areaMm2 ?? null, areaShare];
}

/**
 * @param {LabelResult} label
 * @param {number} expected  number of measures; an image without an object has none
 * @returns {Cell[]}
 */
function measureValues({ measures }, expected) {
  if (!measures.length) return new Array(expected * MEASURE.length).fill(null);
  return measures.flatMap(({ value, interval, unit }) => [value, ...bounds(interval), unit]);
}

/**
 * @param {Interval} [interval]
 * @returns {Cell[]}
 */
function bounds(interval) {
  return [interval?.low ?? null, interval?.high ?? null];
}

/**
 * Returns the rows of the file of objects.
 * @param {import("./requests.js").Entry} entry
 * @param {import("./items.js").Item[]} items
 * @param {string} unit  of lengths
 * @returns {Cell[][]}
 */
export function objectRows({ file, resultFrame }, items, unit) {
  const rows = items.map((item) => [
    ...[file.name, resultFrame, item.label, item.id],
    ...[item.box.left, item.box.top, item.box.width, item.box.height, item.centroidX, item.centroidY],
    ...[item.areaPx, item.area, item.equivalentDiameter, item.majorAxis, item.minorAxis, item.perimeter],
    ...[item.circularity, item.meanProbability, String(item.touchesBorder), unit],
  ]);
  return [OBJECT, ...rows];
}
