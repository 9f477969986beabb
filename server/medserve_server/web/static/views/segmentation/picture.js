// The image with its layers: maps, masks, outlines, and a marker around one object.

import { element } from "../../dom.js";
import { t } from "../../language.js";
import { context, drawEnlarged, drawMarker, drawMask, drawOutlines, lineWidth } from "./drawing.js";
import { colorOf, itemAt, outlines } from "./items.js";
import { drawMap, MAGMA, pngImage, rgb, VIRIDIS } from "./maps.js";

/** @typedef {import("./items.js").Item} Item */
/** @typedef {import("./requests.js").SegmentResult} SegmentResult */
/** @typedef {ReturnType<typeof picture>} Picture */

const SIDE = 1600; // of the drawn picture; large images are reduced, small ones are enlarged
const MAX_SCALE = 8;

/**
 * Returns the picture of a result, which is empty until `draw`.
 * @param {import("../files/picker.js").Opened} opened
 * @param {SegmentResult} result
 * @param {Item[]} items
 * @param {(item: Item | null) => void} onPick  called with the object that is clicked on
 */
export function picture({ file, format }, result, items, onPick) {
  const { width, height } = result;
  const scale = Math.min(SIDE / Math.max(width, height), MAX_SCALE);
  const step = Math.ceil(Math.max(width, height) / SIDE);
  const line = lineWidth(items, scale);
  const size = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
  const layers = {
    image: element("canvas", size),
    probability: element("canvas"),
    uncertainty: element("canvas"),
    mask: element("canvas", { class: "pixelated" }),
    outlines: element("canvas", size),
    marker: element("canvas", size),
  };
  /** @type {{items: Item[], color: string, path: Path2D}[]} */
  let parts = [];
  const loading = format.shown ? fileImage(file) : pngImage(result.previewPng);

  /** Draws the image, and returns whether the browser can display it. */
  async function drawImage() {
    const source = await loading;
    if (source) context(layers.image).drawImage(source, 0, 0, size.width, size.height);
    return source !== null;
  }

  /**
   * Draws the layers of the chosen labels.
   * @param {string[]} labels
   */
  async function draw(labels) {
    const chosen = partsOf(result, items, labels);
    parts = chosen;
    drawOutlines(layers.outlines, chosen, scale, line);
    drawMask(layers.mask, result, step, chosen.map((part) => ({ items: part.items, color: rgb(part.color) })));
    const shown = result.labels.filter(({ label }) => labels.includes(label));
    const maps = await Promise.all(shown.map(({ probabilityPng }) => pngImage(probabilityPng)));
    if (parts !== chosen) return; // others were chosen in the meantime
    drawMap(layers.probability, maps, VIRIDIS);
    if (result.uncertaintyPng) drawMap(layers.uncertainty, [await pngImage(result.uncertaintyPng)], MAGMA);
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

  const node = element(
    "div",
    { class: "segmentation-stage", role: "img", "aria-label": t("segmentation.picture_of", { name: file.name }) },
    ...Object.values(layers),
  );
  node.style.setProperty("--ratio", String(width / height));
  node.addEventListener("click", ({ offsetX, offsetY }) => {
    const [x, y] = [(offsetX / node.clientWidth) * width, (offsetY / node.clientHeight) * height];
    onPick(itemAt(parts.flatMap((part) => part.items), x, y) ?? null);
  });
  return {
    node,
    layers,
    displayed: drawImage(),
    draw,
    /** @param {Item | null} item */
    mark: (item) => drawMarker(layers.marker, item, scale, line + 2),
    /**
     * Draws an object enlarged.
     * @param {HTMLCanvasElement} canvas
     * @param {Item} item
     */
    async enlarge(canvas, item) {
      drawEnlarged(canvas, { source: await loading, width, height }, parts, item);
    },
    toBlob,
  };
}

/**
 * Returns what is drawn of each chosen label.
 * @param {SegmentResult} result
 * @param {Item[]} items
 * @param {string[]} labels
 */
function partsOf(result, items, labels) {
  return result.labels.flatMap(({ label }, index) => {
    const own = items.filter((item) => item.label === label);
    return labels.includes(label) ? [{ items: own, color: colorOf(index), path: outlines(own) }] : [];
  });
}

/**
 * Returns a file as an image; null if the browser cannot display it.
 * @param {File} file
 */
async function fileImage(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return image;
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  } finally {
    URL.revokeObjectURL(url);
  }
}
