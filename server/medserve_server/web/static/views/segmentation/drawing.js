// Drawing of objects in pixels of the image.

import { outlines } from "./items.js";
import { paint } from "./run_length.js";

/** @typedef {import("./items.js").Item} Item */
/** @typedef {{path: Path2D, color: string}} Outlines */

const CASING = "rgb(0 0 0 / 60%)"; // makes lines visible on every ground
const MARKED = "#ffffff";
const SMALL = 60; // an object below this size in the drawn picture gets a circle around it
const MARGIN = 0.4; // around an enlarged object, as a fraction of its size
const MIN_REGION = 24; // pixels of the image that are enlarged

/** @param {HTMLCanvasElement} canvas */
export function context(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/**
 * Clears a canvas, and returns its context for drawing in pixels of the image.
 * @param {HTMLCanvasElement} canvas
 * @param {number} scale
 */
function cleared(canvas, scale) {
  const target = context(canvas);
  target.resetTransform();
  target.clearRect(0, 0, canvas.width, canvas.height);
  target.scale(scale, scale);
  return target;
}

/**
 * Draws a line with a dark casing.
 * @param {CanvasRenderingContext2D} target
 * @param {Path2D} path
 * @param {string} color
 * @param {number} width
 */
function stroke(target, path, color, width) {
  target.lineJoin = "round";
  for (const [style, factor] of /** @type {const} */ ([[CASING, 2], [color, 1]])) {
    target.strokeStyle = style;
    target.lineWidth = width * factor;
    target.stroke(path);
  }
}

/**
 * Returns the width of outlines in the drawn picture: thin where objects are small.
 * @param {Item[]} items
 * @param {number} scale
 */
export function lineWidth(items, scale) {
  const areas = items.map(({ areaPx }) => areaPx).sort((one, other) => one - other);
  const median = areas[Math.floor(areas.length / 2)] ?? 0;
  return Math.min(Math.max(Math.sqrt(median) * scale * 0.06, 1.25), 4);
}

/**
 * Draws outlines.
 * @param {HTMLCanvasElement} canvas
 * @param {Outlines[]} paths
 * @param {number} scale
 * @param {number} line  width in the drawn picture
 */
export function drawOutlines(canvas, paths, scale, line) {
  const target = cleared(canvas, scale);
  for (const { path, color } of paths) stroke(target, path, color, line / scale);
}

/**
 * Draws the pixels of objects. The canvas takes the size of the image divided by a step.
 * @param {HTMLCanvasElement} canvas
 * @param {{width: number, height: number}} image
 * @param {number} step
 * @param {{items: Item[], color: number[]}[]} parts  with red, green and blue
 */
export function drawMask(canvas, { width, height }, step, parts) {
  canvas.width = Math.ceil(width / step);
  canvas.height = Math.ceil(height / step);
  const sheet = new ImageData(canvas.width, canvas.height);
  for (const { items, color } of parts) {
    for (const { runLength } of items) paint(sheet, runLength, [...color, 255], height, step);
  }
  context(canvas).putImageData(sheet, 0, 0);
}

/**
 * Draws the outline of an object, with a circle around it if it is small.
 * @param {HTMLCanvasElement} canvas
 * @param {Item | null} item  null clears the canvas
 * @param {number} scale
 * @param {number} line  width in the drawn picture
 */
export function drawMarker(canvas, item, scale, line) {
  const target = cleared(canvas, scale);
  if (!item) return;
  stroke(target, outlines([item]), MARKED, line / scale);
  const { left, top, width, height } = item.box;
  const extent = Math.max(width, height);
  if (extent * scale >= SMALL) return;
  const circle = new Path2D();
  circle.arc(left + width / 2, top + height / 2, Math.max(extent, SMALL / scale), 0, 2 * Math.PI);
  stroke(target, circle, MARKED, line / scale);
}

/**
 * Draws an object and its surroundings, enlarged.
 * @param {HTMLCanvasElement} canvas  square
 * @param {{source: HTMLImageElement | null, width: number, height: number}} image
 * @param {Outlines[]} paths
 * @param {Item} item
 */
export function drawEnlarged(canvas, { source, width, height }, paths, item) {
  const { box } = item;
  const wanted = Math.max(Math.max(box.width, box.height) * (1 + 2 * MARGIN), MIN_REGION);
  const side = Math.min(wanted, Math.max(width, height));
  const left = within(box.left + (box.width - side) / 2, width - side);
  const top = within(box.top + (box.height - side) / 2, height - side);
  const scale = canvas.width / side;
  const target = cleared(canvas, scale);
  target.translate(-left, -top);
  if (source) target.drawImage(source, 0, 0, width, height);
  for (const { path, color } of [...paths, { path: outlines([item]), color: MARKED }]) {
    stroke(target, path, color, 3.5 / scale);
  }
}

/**
 * Returns a number limited to the range from 0 to a highest value; half of that value if it is negative.
 * @param {number} value
 * @param {number} highest
 */
function within(value, highest) {
  return highest < 0 ? highest / 2 : Math.min(Math.max(value, 0), highest);
}
