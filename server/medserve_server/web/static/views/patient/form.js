/** The form of one patient, generated from the features of the manifest. */

import { element } from "../../dom.js";
import { createField } from "./fields.js";

/** @typedef {import("./features.js").Feature} Feature */
/** @typedef {import("./features.js").Values} Values */
/**
 * @typedef {object} PatientForm
 * @property {HTMLElement} element
 * @property {() => Values | null} read returns the values; if the server would refuse one, focuses it and returns null
 * @property {(values: Values) => void} fill replaces all values and shows the remarks about them
 * @property {() => string[]} raw returns the content of the controls, valid or not
 * @property {(raw: string[]) => void} restore sets the content of the controls
 */

/**
 * Creates the form.
 *
 * @param {Feature[]} features
 * @param {Node[]} actions elements below the fields
 * @param {{submit: () => void, change: () => void, paste: (row: string) => void}} on `change` is called when a value
 *   has changed, `paste` when a row of cells is pasted into a field
 * @returns {PatientForm}
 */
export function patientForm(features, actions, on) {
  const fields = features.map((feature, index) => createField(feature, `patient-value-${index}`));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    on.submit();
  };
  const paste = (/** @type {ClipboardEvent} */ event) => {
    const text = event.clipboardData?.getData("text") ?? "";
    if (/[\t\n]/.test(text.trim())) {
      event.preventDefault();
      on.paste(text);
    }
  };
  const form = element(
    "form",
    { novalidate: true, autocomplete: "off", class: "patient-form", on: { submit } },
    element("div", { class: "patient-fields", on: { input: on.change, paste } }, ...fields.map((field) => field.element)),
    ...actions,
  );
  return {
    element: form,
    read() {
      const found = fields.map((field) => field.read());
      fields.forEach((field, index) => field.show(found[index].remark));
      const wrong = found.findIndex(({ remark }) => remark?.kind === "error");
      if (wrong >= 0) {
        fields[wrong].focus();
        return null;
      }
      return new Map(features.map((feature, index) => [feature.name, found[index].value]));
    },
    fill(values) {
      features.forEach((feature, index) => fields[index].set(values.get(feature.name) ?? null));
      on.change();
    },
    raw: () => fields.map((field) => field.raw()),
    restore: (raw) => fields.forEach((field, index) => field.restore(raw[index])),
  };
}
