// The image with its layers: maps, masks, outlines, and a marker around one object.

import { element } from "../../dom.js";
import { t } from "../../language.js";
import { colorOf, itemAt, outlines } from "./items.js";
import { drawMap, MAGMA, pngImage, rgb, VIRIDIS } from "./maps.js";
import { paint } from "./run_length.js";

/** @typedef {import("./items.js").Item} Item */
/** @typedef {ReturnType<typeof picture>} Picture */

const SIDE = 1600; // of the drawn picture; large images are reduced, small ones are enlarged
const MAX_SCALE = 8;
const CASING = "rgb(0 0 0 / 60%)"; // makes lines visible on every ground
const SMALL = 60; // an object below this size in the drawn picture gets a circle around it
const MARGIN = 0.4; // around the object in the magnifier, as a fraction of its size
const MIN_REGION = 24; // pixels of the image

/**
 * Returns the picture of a result. Its layers are drawn once; `draw` repeats that for other labels.
 * @param {import("../files/picker.js").Opened} opened
 * @param {import("./requests.js").SegmentResult} result
 * @param {Item[]} items
 * @param {(item: Item | null) => void} onPick  called with the object that is clicked on
 */
export function picture({ file, format }, result, items, onPick) {
  const { width, height } = result;
  const scale = Math.min(SIDE / Math.max(width, height), MAX_SCALE);
  const size = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
  const layers = {
    image: element("canvas", size),
    probability: element("canvas"),
    uncertainty: element("canvas"),
    mask: element("canvas", { class: "pixelated" }),
    outlines: element("canvas", size),
    marker: element("canvas", size),
  };
  const stage = element(
    "div",
    { class: "segmentation-stage", role: "img", "aria-label": t("segmentation.picture_of", { name: file.name }) },
    ...Object.values(layers),
  );
  stage.style.setProperty("--ratio", String(width / height));
  stage.addEventListener("click", ({ offsetX, offsetY }) => {
    const { clientWidth, clientHeight } = stage;
    onPick(itemAt(shownItems, (offsetX / clientWidth) * width, (offsetY / clientHeight) * height) ?? null);
  });
  let shownItems = items;
  /** @type {{path: Path2D, color: string}[]} */
  let paths = [];
  const step = Math.ceil(Math.max(width, height) / SIDE); // of the pixels that are in the mask
  const source = format.shown ? fileImage(file) : pngImage(result.previewPng);
  const line = lineWidth(items, scale);

  async function drawImage() {
    context(layers.image).drawImage(await source, 0, 0, size.width, size.height);
  }

  /**
   * Draws the layers of the chosen labels.
   * @param {string[]} labels
   */
  async function draw(labels) {
    shownItems = items.filter(({ label }) => labels.includes(label));
    paths = result.labels.flatMap(({ label }, index) =>
      labels.includes(label)
        ? [{ path: outlines(shownItems.filter((item) => item.label === label)), color: colorOf(index) }]
        : [],
    );
    const lines = scaled(layers.outlines, scale);
    for (const { path, color } of paths) stroke(lines, path, color, line / scale);
    drawMask();
    const chosen = result.labels.filter(({ label }) => labels.includes(label));
    const maps = await Promise.all(chosen.map(({ probabilityPng }) => pngImage(probabilityPng)));
    drawMap(layers.probability, maps, VIRIDIS);
    if (result.uncertaintyPng) drawMap(layers.uncertainty, [await pngImage(result.uncertaintyPng)], MAGMA);
  }

  function drawMask() {
    const { mask } = layers;
    [mask.width, mask.height] = [Math.ceil(width / step), Math.ceil(height / step)];
    const sheet = new ImageData(mask.width, mask.height);
    const colors = new Map(result.labels.map(({ label }, index) => [label, rgb(colorOf(index))]));
    for (const { label, runLength } of shownItems) {
      paint(sheet, runLength, [...(colors.get(label) ?? []), 255], height, step);
    }
    context(mask).putImageData(sheet, 0, 0);
  }

  /** @param {Item | null} item */
  function mark(item) {
    const target = scaled(layers.marker, scale);
    if (!item) return;
    stroke(target, outlines([item]), "#ffffff", (line + 2) / scale);
    const extent = Math.max(item.box.width, item.box.height);
    if (extent * scale >= SMALL) return;
    const circle = new Path2D();
    const { left, top, width: wide, height: high } = item.box;
    circle.arc(left + wide / 2, top + high / 2, Math.max(extent, SMALL / scale), 0, 2 * Math.PI);
    stroke(target, circle, "#ffffff", 4 / scale);
  }

  /**
   * Draws the object and its surroundings, enlarged.
   * @param {HTMLCanvasElement} canvas  square
   * @param {Item} item
   */
  async function magnify(canvas, { box }) {
    const image = await source;
    const wanted = Math.max(Math.max(box.width, box.height) * (1 + 2 * MARGIN), MIN_REGION);
    const side = Math.min(wanted, Math.max(width, height));
    const left = within(box.left + (box.width - side) / 2, width - side);
    const top = within(box.top + (box.height - side) / 2, height - side);
    const enlarged = canvas.width / side;
    const target = scaled(canvas, enlarged);
    target.translate(-left, -top);
    target.drawImage(image, 0, 0, width, height);
    for (const { path, color } of paths) stroke(target, path, color, 3.5 / enlarged);
  }

  /**
   * Returns the picture with its layers as they are shown, as a PNG file.
   * @returns {Promise<Blob | null>}
   */
  function toBlob() {
    const sheet = element("canvas", size);
    const target = context(sheet);
    for (const layer of Object.values(layers)) {
      target.globalAlpha = Number(layer.style.opacity || 1);
      target.drawImage(layer, 0, 0, size.width, size.height);
    }
    return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  }

  return { node: stage, layers, ready: drawImage(), draw, mark, magnify, toBlob };
}

/** @param {File} file */
async function fileImage(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  await image.decode().finally(() => URL.revokeObjectURL(url));
  return image;
}

/** @param {HTMLCanvasElement} canvas */
function context(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/**
 * Returns a number limited to the range from 0 to a highest value; half of that value if it is negative.
 * @param {number} value
 * @param {number} highest
 */
function within(value, highest) {
  return highest < 0 ? highest / 2 : Math.min(Math.max(value, 0), highest);
}

/**
 * Clears a canvas, and returns its context for drawing in pixels of the image.
 * @param {HTMLCanvasElement} canvas
 * @param {number} scale
 */
function scaled(canvas, scale) {
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
function lineWidth(items, scale) {
  const areas = items.map(({ areaPx }) => areaPx).sort((one, other) => one - other);
  const median = areas[Math.floor(areas.length / 2)] ?? 0;
  return Math.min(Math.max(Math.sqrt(median) * scale * 0.06, 1.25), 4);
}
