// The activations of the layers that a model exports, one grayscale picture for each channel.

import { element, replace } from "../../dom.js";
import { number, t } from "../../language.js";
import { errorBox } from "../errors.js";
import { computedFor } from "./explanations.js";
import { classify } from "./requests.js";

/** @typedef {import("./requests.js").FeatureMaps} FeatureMaps */

const SHOWN = 12; // channels on one page

/**
 * Returns the section of feature maps; null for a model without them.
 * @param {import("./explanations.js").Explained} explained
 * @param {(reasons: import("./requests.js").Reasons) => void} onRequest  called with what is shown
 */
export function featureMaps({ model, entry, task, signal }, onRequest) {
  if (!task?.featureMaps.length) return null;
  const layer = element(
    "select",
    { id: "image-layer" },
    ...task.featureMaps.map(({ layer: name, channels }) =>
      element("option", { value: name }, t("image.layer_channels", { layer: name, channels })),
    ),
  );
  const maps = element("div", { "aria-live": "polite" });

  async function show() {
    const name = layer.value;
    const reasons = { featureMaps: [name] };
    const key = `layer ${name}`;
    const known = computedFor(entry);
    onRequest(reasons);
    try {
      replace(maps, element("p", { class: "loading" }, t("image.computing")));
      const found = known.get(key) ?? (await classify(model, entry, entry.resultFrame, reasons, signal)).featureMaps[0];
      known.set(key, found);
      if (layer.value === name) replace(maps, channelPages(/** @type {FeatureMaps} */ (found)));
    } catch (error) {
      if (layer.value === name && !signal.aborted) replace(maps, errorBox(error, show));
    }
  }

  return element(
    "section",
    { class: "image-features" },
    element("h3", {}, t("image.feature_maps")),
    element(
      "div",
      { class: "row no-print" },
      element("label", { for: "image-layer" }, t("image.layer")),
      layer,
      element("button", { type: "button", on: { click: show } }, t("image.compute")),
    ),
    maps,
  );
}

/** @param {FeatureMaps} maps */
function channelPages({ channels, height, width, values }) {
  const bytes = Uint8Array.from(atob(values), (character) => character.charCodeAt(0));
  const numbers = new Float32Array(bytes.buffer);
  const size = height * width;
  let first = 0;
  const pictures = element("div", { class: "image-channels" });
  const position = element("span", {});
  const step = (/** @type {number} */ by) => () => {
    first += by;
    show();
  };
  const back = element("button", { type: "button", on: { click: step(-SHOWN) } }, t("image.previous"));
  const next = element("button", { type: "button", on: { click: step(SHOWN) } }, t("image.next"));

  function show() {
    const end = Math.min(first + SHOWN, channels);
    back.disabled = first === 0;
    next.disabled = end === channels;
    replace(position, t("image.channels_of", { first: first + 1, last: end, channels }));
    const shown = Array.from({ length: end - first }, (_, index) => first + index);
    const figures = shown.map((one) => channel(one + 1, numbers.subarray(one * size, (one + 1) * size), height, width));
    replace(pictures, ...figures);
  }

  show();
  return element(
    "div",
    {},
    pictures,
    element("div", { class: "row" }, channels > SHOWN ? back : null, channels > SHOWN ? next : null, position),
    element("p", { class: "muted" }, t("image.channel_scale", { width, height })),
  );
}

/**
 * Draws a channel from black, its lowest value, to white, its highest.
 * @param {number} index  from 1
 * @param {Float32Array} values
 * @param {number} height
 * @param {number} width
 */
function channel(index, values, height, width) {
  const low = values.reduce((one, other) => Math.min(one, other), Infinity);
  const high = values.reduce((one, other) => Math.max(one, other), -Infinity);
  const range = t("image.channel_range", { low: number(low, 2), high: number(high, 2) });
  const name = t("image.channel", { index });
  const label = `${name}: ${range}`;
  const canvas = element("canvas", { width, height, class: "pixelated", role: "img", "aria-label": label });
  const pixels = new ImageData(width, height);
  values.forEach((value, at) => {
    const shade = high > low ? (255 * (value - low)) / (high - low) : 0;
    pixels.data.set([shade, shade, shade, 255], 4 * at);
  });
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  return element("figure", {}, canvas, element("figcaption", {}, name, element("br", {}), range));
}
