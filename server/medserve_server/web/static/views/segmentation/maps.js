// Gray maps of the server as colored pictures, and their color scales.

import { element, svg } from "../../dom.js";

/** Colors of the maps from the lowest to the highest value. */
export const VIRIDIS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
export const MAGMA = ["#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf"]; // without black

const OPAQUE = 0.25; // fraction of the scale from which on the image does not shine through

/**
 * Returns a PNG file as an image.
 * @param {string} base64
 */
export async function pngImage(base64) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  return image;
}

/**
 * Draws the pixelwise maximum of gray maps of the same size in color; the canvas takes their size.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLImageElement[]} images
 * @param {string[]} stops
 */
export function drawMap(canvas, images, stops) {
  canvas.width = images[0]?.naturalWidth ?? 1;
  canvas.height = images[0]?.naturalHeight ?? 1;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.globalCompositeOperation = "lighten";
  for (const image of images) context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const colors = colorTable(stops);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const from = pixels.data[at] * 4;
    pixels.data.set(colors.subarray(from, from + 4), at);
  }
  context.putImageData(pixels, 0, 0);
}

/**
 * Returns red, green and blue of a color.
 * @param {string} color  e.g. "#ffdd00"
 */
export function rgb(color) {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}

/**
 * Returns red, green, blue and opacity of each of 256 values.
 * @param {string[]} stops
 */
function colorTable(stops) {
  const colors = stops.map(rgb);
  const table = new Uint8ClampedArray(4 * 256);
  for (let value = 0; value < 256; value++) {
    const position = (value / 255) * (colors.length - 1);
    const index = Math.min(Math.floor(position), colors.length - 2);
    const mixed = colors[index].map((low, part) => low + (colors[index + 1][part] - low) * (position - index));
    table.set([...mixed, value / OPAQUE], 4 * value);
  }
  return table;
}

/**
 * Returns the color scale of a map.
 * @param {string} id  unique in the page
 * @param {string[]} stops
 * @param {string[]} ends  lowest and highest value
 */
export function colorScale(id, stops, ends) {
  const gradient = svg(
    "linearGradient",
    { id },
    ...stops.map((color, index) => {
      const offset = index / (stops.length - 1);
      return svg("stop", { offset, "stop-color": color, "stop-opacity": Math.min(1, offset / OPAQUE) });
    }),
  );
  return element(
    "div",
    { class: "segmentation-scale" },
    element("span", {}, ends[0]),
    svg(
      "svg",
      { role: "img", "aria-label": ends.join(" – "), width: "100%", height: 10 },
      svg("defs", {}, gradient),
      svg("rect", { width: "100%", height: 10, rx: 3, fill: `url(#${id})` }),
    ),
    element("span", {}, ends[1]),
  );
}
