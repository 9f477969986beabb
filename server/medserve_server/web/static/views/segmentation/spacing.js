// The pixel spacing of files that do not state it.

import { element, replace } from "../../dom.js";
import { t } from "../../language.js";

/** @typedef {import("./requests.js").Spacing} Spacing */

const MAX_MM = 1000; // as in the server

/**
 * Returns the fields for the distance between rows and between columns. If only one is filled in, both are the same.
 * @param {Spacing | null} spacing
 * @param {(spacing: Spacing | null) => void} onChange
 */
export function spacingFields(spacing, onChange) {
  const field = (/** @type {string} */ name, /** @type {number | undefined} */ value) =>
    element("input", {
      type: "number",
      id: `segmentation-${name}`,
      min: 0,
      max: MAX_MM,
      step: "any",
      inputmode: "decimal",
      value,
      "aria-describedby": "segmentation-spacing-hint segmentation-spacing-invalid",
      on: { change },
    });
  const row = field("row", spacing?.rowMm);
  const column = field("column", spacing?.columnMm);
  const invalid = element("p", { class: "invalid", id: "segmentation-spacing-invalid", role: "alert" });

  function change() {
    const valid = [row, column].every((input) => input.validity.valid && input.value !== "0");
    replace(invalid, valid ? null : t("segmentation.spacing_invalid", { max: MAX_MM }));
    row.placeholder = column.value;
    column.placeholder = row.value;
    if (!valid) return;
    const [rowMm, columnMm] = [row.value || column.value, column.value || row.value].map(Number);
    onChange(rowMm > 0 ? { rowMm, columnMm } : null);
  }

  return element(
    "fieldset",
    { class: "segmentation-spacing no-print" },
    element("legend", {}, t("segmentation.spacing")),
    element("label", { for: "segmentation-row" }, t("segmentation.spacing_row")),
    row,
    element("label", { for: "segmentation-column" }, t("segmentation.spacing_column")),
    column,
    element("p", { class: "muted", id: "segmentation-spacing-hint" }, t("segmentation.spacing_hint")),
    invalid,
  );
}
