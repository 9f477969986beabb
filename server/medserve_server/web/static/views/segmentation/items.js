// The objects of a result, in the order of their labels, and where they are.

/** @typedef {import("./requests.js").SegmentedObject} SegmentedObject */
/** @typedef {SegmentedObject & {label: string}} Item */

/** Colors of the labels, as in the server's overlays; repeated after the last. */
const COLORS = ["#ffdd00", "#00c8ff", "#ff40a0", "#40dc40"];

/**
 * Returns the color of a label by its position in the manifest.
 * @param {number} index
 */
export function colorOf(index) {
  return COLORS[index % COLORS.length];
}

/**
 * Returns the objects of all labels.
 * @param {import("./requests.js").SegmentResult} result
 * @returns {Item[]}
 */
export function itemsOf({ labels }) {
  return labels.flatMap(({ label, objects }) => objects.map((object) => ({ ...object, label })));
}

/**
 * Returns the outlines of objects as a path, in pixels of the image.
 * @param {Item[]} items
 */
export function outlines(items) {
  const path = new Path2D();
  for (const { contour } of items) {
    for (let at = 0; at < contour.length; at += 2) {
      if (at === 0) path.moveTo(contour[0], contour[1]);
      else path.lineTo(contour[at], contour[at + 1]);
    }
    path.closePath();
  }
  return path;
}

/**
 * Returns the smallest object at a position; undefined if there is none.
 * @param {Item[]} items
 * @param {number} x
 * @param {number} y
 */
export function itemAt(items, x, y) {
  const found = items.filter(({ box, contour }) => {
    const inBox = x >= box.left && x <= box.left + box.width && y >= box.top && y <= box.top + box.height;
    return inBox && isInside(contour, x, y);
  });
  return found.sort((one, other) => one.areaPx - other.areaPx)[0];
}

/**
 * Returns whether a ray from the position to the right crosses the outline an odd number of times. The sides of an
 * outline are horizontal or vertical, and only the vertical ones are crossed.
 * @param {number[]} contour
 * @param {number} x
 * @param {number} y
 */
function isInside(contour, x, y) {
  let inside = false;
  for (let at = 0; at < contour.length; at += 2) {
    const next = (at + 2) % contour.length;
    if (contour[at + 1] > y !== contour[next + 1] > y && contour[at] > x) inside = !inside;
  }
  return inside;
}
