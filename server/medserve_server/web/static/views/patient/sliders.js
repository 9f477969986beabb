/** A what-if slider for a number, or radio buttons for a category. */

import { element } from "../../dom.js";
import { t } from "../../language.js";
import { assumed, title, withUnit } from "./features.js";
import { nearest, sliderScale } from "./scale.js";

/** @typedef {import("./features.js").Feature} Feature */
/** @typedef {import("./features.js").Value} Value */
/**
 * @typedef {object} Slider
 * @property {Feature} feature
 * @property {HTMLElement} element fires `input` while it moves and `change` on release
 * @property {import("./scale.js").Scale | null} scale null for a category
 * @property {number | string} start the entered value, or what replaces a missing one
 * @property {() => number | string} value the chosen value
 * @property {() => void} reset
 */

let count = 0;

/**
 * Creates the slider of a feature.
 *
 * @param {Feature} feature
 * @param {Value} entered
 * @returns {Slider | null} null if there is nothing to choose from
 */
export function createSlider(feature, entered) {
  const start = entered ?? assumed(feature) ?? 0;
  const id = `patient-slider-${count++}`;
  return typeof start === "string" ? radioSlider(feature, start, id) : rangeSlider(feature, start, entered, id);
}

/**
 * @param {Feature} feature
 * @param {number} start
 * @param {Value} entered
 * @param {string} id
 * @returns {Slider | null}
 */
function rangeSlider(feature, start, entered, id) {
  const scale = sliderScale(feature, start);
  if (!scale) {
    return null;
  }
  const { values } = scale;
  const shown = element("output", { for: id });
  const input = element("input", { id, type: "range", min: 0, max: values.length - 1, step: 1 });

  /** @param {string} text */
  function show(text) {
    shown.textContent = text;
    input.setAttribute("aria-valuetext", text);
  }

  const value = () => values[Number(input.value)];
  const reset = () => {
    input.value = String(nearest(values, start));
    const text = withUnit(start, feature);
    show(entered === null ? t("patient.value_assumed", { value: text }) : text);
  };
  input.addEventListener("input", () => show(withUnit(value(), feature)));
  reset();
  return {
    feature,
    element: element(
      "div",
      { class: "patient-slider" },
      element("label", { for: id }, title(feature)),
      shown,
      input,
    ),
    scale,
    start,
    value,
    reset,
  };
}

/**
 * @param {Feature} feature
 * @param {string} start
 * @param {string} id
 * @returns {Slider}
 */
function radioSlider(feature, start, id) {
  const names = feature.categorical?.names ?? [];
  const radios = names.map((_, index) =>
    element("input", { type: "radio", name: id, id: `${id}-${index}`, value: String(index) }),
  );
  const reset = () => {
    radios[names.indexOf(start)].checked = true;
  };
  reset();
  return {
    feature,
    element: element(
      "fieldset",
      { class: "patient-slider" },
      element("legend", {}, title(feature)),
      element(
        "div",
        { class: "patient-choices" },
        ...names.map((name, index) => element("label", { for: `${id}-${index}` }, radios[index], name)),
      ),
    ),
    scale: null,
    start,
    value: () => names[radios.findIndex((radio) => radio.checked)],
    reset,
  };
}
