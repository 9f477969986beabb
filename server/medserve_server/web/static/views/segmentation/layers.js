// The opacity of each layer, and the choice of labels.

import { element, replace } from "../../dom.js";
import { percent, t } from "../../language.js";
import { colorOf } from "./items.js";
import { colorScale, MAGMA, VIRIDIS } from "./maps.js";

/** @typedef {"mask" | "outlines" | "probability" | "uncertainty"} Layer */

/**
 * The opacities in percent, which stay when another file is shown.
 * @type {Record<Layer, number>}
 */
const opacities = { mask: 30, outlines: 100, probability: 0, uncertainty: 0 };

/**
 * Returns the sliders.
 * @param {import("./picture.js").Picture} shown
 * @param {boolean} hasUncertainty
 */
export function layerSliders({ layers }, hasUncertainty) {
  return element(
    "fieldset",
    { class: "segmentation-layers no-print" },
    element("legend", {}, t("segmentation.layers")),
    ...slider("mask", layers.mask, t("segmentation.layer_mask"), null),
    ...slider("outlines", layers.outlines, t("segmentation.layer_outlines"), null),
    ...slider(
      "probability",
      layers.probability,
      t("segmentation.layer_probability"),
      colorScale("segmentation-probability-scale", VIRIDIS, [percent(0, 0), percent(1, 0)]),
    ),
    ...(hasUncertainty
      ? slider(
          "uncertainty",
          layers.uncertainty,
          t("segmentation.layer_uncertainty"),
          colorScale("segmentation-uncertainty-scale", MAGMA, [percent(0, 0), t("segmentation.spread", { value: percent(0.5, 0) })]),
        )
      : []),
  );
}

/**
 * @param {Layer} layer
 * @param {HTMLCanvasElement} canvas
 * @param {string} name
 * @param {HTMLElement | null} scale
 */
function slider(layer, canvas, name, scale) {
  const id = `segmentation-${layer}`;
  const input = element("input", { type: "range", id, min: 0, max: 100, step: 5, value: opacities[layer] });
  const output = element("output", { for: id, class: "numeric" });

  function apply() {
    opacities[layer] = input.valueAsNumber;
    canvas.style.opacity = String(opacities[layer] / 100);
    canvas.hidden = opacities[layer] === 0;
    replace(output, percent(opacities[layer] / 100, 0));
    if (scale) scale.hidden = canvas.hidden;
  }

  input.addEventListener("input", apply);
  apply();
  return [element("label", { for: id }, name), input, output, scale];
}

/**
 * Returns a checkbox for each label; null if there is only one label.
 * @param {string[]} labels
 * @param {(chosen: string[]) => void} onChange
 */
export function labelChoice(labels, onChange) {
  if (labels.length < 2) return null;
  const boxes = labels.map((label) => element("input", { type: "checkbox", value: label, checked: true, on: { change } }));
  function change() {
    onChange(boxes.filter(({ checked }) => checked).map(({ value }) => value));
  }
  return element(
    "fieldset",
    { class: "segmentation-labels no-print" },
    element("legend", {}, t("segmentation.labels")),
    ...boxes.map((box, index) => element("label", {}, box, swatch(index), labels[index])),
  );
}

/**
 * Returns the color of a label as a dot.
 * @param {number} index
 */
export function swatch(index) {
  const dot = element("span", { class: "segmentation-swatch", "aria-hidden": "true" });
  dot.style.background = colorOf(index);
  return dot;
}
