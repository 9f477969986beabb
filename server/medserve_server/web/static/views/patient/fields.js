/** One control of the form for each feature, with its ranges and the remarks about its value. */

import { element, replace } from "../../dom.js";
import { t } from "../../language.js";
import { CellError, assumed, checkValue, parseCell, plain, title, withUnit } from "./features.js";

/** @typedef {import("./features.js").Feature} Feature */
/** @typedef {import("./features.js").Value} Value */
/** @typedef {import("./features.js").Remark} Remark */
/**
 * @typedef {object} Control
 * @property {HTMLElement} box the control with its label
 * @property {HTMLElement} marked the element with the role, for aria-invalid
 * @property {HTMLElement} focused
 * @property {() => {value: Value, remark: Remark | null}} read
 * @property {() => string} raw returns its content, valid or not
 * @property {(raw: string) => void} restore sets its content
 * @property {(value: Value) => string} toRaw
 */
/**
 * @typedef {object} Field
 * @property {HTMLElement} element
 * @property {Control["read"]} read
 * @property {(value: Value) => void} set sets the value and shows the remark about it
 * @property {(remark: Remark | null) => void} show shows a remark, or none
 * @property {() => void} focus
 * @property {Control["raw"]} raw
 * @property {Control["restore"]} restore
 */

// Up to this number of categories, they are radio buttons; more are a list.
const RADIOS = 6;

/**
 * Creates the field of a feature.
 *
 * @param {Feature} feature
 * @param {string} id
 * @returns {Field}
 */
export function createField(feature, id) {
  const control = createControl(feature, id);
  const text = element("p", { id: `${id}-remark`, class: "patient-remark", "aria-live": "polite" });
  control.box.append(element("p", { id: `${id}-hint`, class: "patient-hint" }, hint(feature)), text);

  /** @param {Remark | null} remark */
  function show(remark) {
    replace(text, remark ? t(`patient.remark.${remark.kind}`, { text: remark.text }) : null);
    text.classList.toggle("patient-error", remark?.kind === "error");
    text.classList.toggle("patient-warning", remark?.kind === "warning");
    control.marked.setAttribute("aria-invalid", String(remark?.kind === "error"));
  }

  // A remark appears once the value is complete, and then follows each key.
  control.box.addEventListener("change", () => afterRelease(() => show(control.read().remark)));
  control.box.addEventListener("input", () => {
    if (text.hasChildNodes()) {
      show(control.read().remark);
    }
  });
  return {
    element: control.box,
    read: control.read,
    set(value) {
      control.restore(control.toRaw(value));
      const { remark } = control.read();
      show(value === null && remark?.kind === "error" ? null : remark);
    },
    show,
    focus: () => control.focused.focus(),
    raw: control.raw,
    restore: control.restore,
  };
}

let isPressed = false;
document.addEventListener("pointerdown", () => (isPressed = true), true);
for (const event of ["pointerup", "pointercancel"]) {
  document.addEventListener(event, () => (isPressed = false), true);
}

/**
 * Runs a function when no pointer is pressed: a button that moves between press and release is not clicked.
 *
 * @param {() => void} run
 */
function afterRelease(run) {
  if (!isPressed) {
    run();
    return;
  }
  const waiting = new AbortController();
  for (const event of ["pointerup", "pointercancel"]) {
    const released = () => {
      waiting.abort();
      setTimeout(run); // after the click
    };
    document.addEventListener(event, released, { signal: waiting.signal });
  }
}

/**
 * @param {Feature} feature
 * @param {string} id
 * @returns {Control}
 */
function createControl(feature, id) {
  const names = feature.categorical?.names;
  if (!names) {
    return numberControl(feature, id);
  }
  return names.length > RADIOS ? listControl(feature, names, id) : radioControl(feature, names, id);
}

/**
 * @param {Feature} feature
 * @param {string} id
 * @returns {Control}
 */
function numberControl(feature, id) {
  // The decimal keyboard of some phones has no minus sign.
  const keyboard = (feature.numeric?.validMin ?? 0) < 0 ? "text" : "decimal";
  const input = element("input", { id, type: "text", inputmode: keyboard, ...described(feature, id) });
  const unit = feature.unit ? element("span", { class: "patient-unit" }, feature.unit) : null;
  return {
    box: element(
      "div",
      { class: "patient-field" },
      element("label", { for: id }, ...labelParts(feature)),
      element("div", { class: "patient-input" }, input, unit),
    ),
    marked: input,
    focused: input,
    read() {
      try {
        const value = parseCell(input.value, feature, t("patient.form_number_hint"));
        return { value, remark: checkValue(value, feature) };
      } catch (error) {
        if (!(error instanceof CellError)) {
          throw error;
        }
        return { value: null, remark: { kind: "error", text: error.message } };
      }
    },
    raw: () => input.value,
    restore(raw) {
      input.value = raw;
    },
    toRaw: (value) => (value === null ? "" : String(value)),
  };
}

/**
 * @param {Feature} feature
 * @param {string[]} names
 * @param {string} id
 * @returns {Control}
 */
function listControl(feature, names, id) {
  const list = element(
    "select",
    { id, ...described(feature, id) },
    element("option", { value: "" }, t(feature.required ? "patient.form_choose" : "patient.form_unknown")),
    ...names.map((name, index) => element("option", { value: String(index) }, name)),
  );
  return {
    box: element("div", { class: "patient-field" }, element("label", { for: id }, ...labelParts(feature)), list),
    marked: list,
    focused: list,
    read() {
      const value = list.value === "" ? null : names[Number(list.value)];
      return { value, remark: checkValue(value, feature) };
    },
    raw: () => list.value,
    restore(raw) {
      list.value = raw;
    },
    toRaw: (value) => (value === null ? "" : String(names.indexOf(String(value)))),
  };
}

/**
 * @param {Feature} feature
 * @param {string[]} names
 * @param {string} id
 * @returns {Control}
 */
function radioControl(feature, names, id) {
  /** @type {Value[]} */
  const choices = feature.required ? names : [...names, null];
  const radios = choices.map((choice, index) =>
    element("input", { type: "radio", name: id, id: `${id}-${index}`, value: String(index), checked: choice === null }),
  );
  const labels = choices.map((choice, index) =>
    element("label", { for: `${id}-${index}` }, radios[index], choice === null ? t("patient.form_unknown") : String(choice)),
  );
  const group = element(
    "fieldset",
    { class: "patient-field", role: "radiogroup", ...described(feature, id) },
    element("legend", {}, ...labelParts(feature)),
    element("div", { class: "patient-choices" }, ...labels),
  );
  return {
    box: group,
    marked: group,
    focused: radios[0],
    read() {
      const checked = radios.findIndex((radio) => radio.checked);
      const value = checked < 0 ? null : choices[checked];
      return { value, remark: checkValue(value, feature) };
    },
    raw: () => radios.find((radio) => radio.checked)?.value ?? "",
    restore(raw) {
      for (const radio of radios) {
        radio.checked = radio.value === raw;
      }
    },
    toRaw: (value) => (choices.includes(value) ? String(choices.indexOf(value)) : ""),
  };
}

/**
 * @param {Feature} feature
 * @param {string} id
 */
function described(feature, id) {
  return { "aria-required": feature.required ? "true" : "false", "aria-describedby": `${id}-hint ${id}-remark` };
}

/**
 * @param {Feature} feature
 * @returns {(Node | string)[]}
 */
function labelParts(feature) {
  const mark = element("span", { class: "patient-required" }, t("patient.form_required"));
  return feature.required ? [title(feature), " ", mark] : [title(feature)];
}

/**
 * Returns the ranges, and what happens if the value is missing.
 *
 * @param {Feature} feature
 */
function hint(feature) {
  const parts = [];
  const range = feature.numeric;
  if (range) {
    const valid = { low: plain(range.validMin), high: plain(range.validMax) };
    parts.push(t(range.integer ? "patient.form_valid_integer" : "patient.form_valid", valid));
    parts.push(t("patient.form_training", { low: plain(range.trainingMin), high: plain(range.trainingMax) }));
  }
  if (!feature.required) {
    parts.push(t("patient.form_if_missing", { value: withUnit(assumed(feature), feature) }));
  }
  return parts.join(" ");
}
