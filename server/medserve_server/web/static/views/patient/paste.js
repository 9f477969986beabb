/** A row pasted from a spreadsheet into the form. */

import { element, replace } from "../../dom.js";
import { t } from "../../language.js";
import { featureColumns, rowValues } from "./columns.js";
import { TableError, findDelimiter, readRecords } from "./table.js";

/** @typedef {import("./features.js").Feature} Feature */
/** @typedef {import("./features.js").Values} Values */

// Maximum length of a pasted text, and of records in it: a header and one row.
const MAX_LENGTH = 100_000;
const MAX_RECORDS = 2;

/**
 * Returns a text area for the row, and a function that fills in a row pasted elsewhere.
 *
 * @param {Feature[]} features
 * @param {string} model its name, for messages
 * @param {(values: Values) => void} fill
 * @returns {{element: HTMLElement, paste: (row: string) => void}}
 */
export function pasteSection(features, model, fill) {
  const names = features.map(({ name }) => name).join(", ");
  const area = element("textarea", {
    id: "patient-paste",
    rows: 3,
    spellcheck: "false",
    autocomplete: "off",
    "aria-describedby": "patient-paste-hint",
  });
  const outcome = element("div", { "aria-live": "polite" });

  function apply() {
    try {
      fill(pastedValues(area.value, features, model));
      area.value = "";
      replace(outcome, element("p", {}, t("patient.paste_done")));
    } catch (error) {
      if (!(error instanceof TableError)) {
        throw error;
      }
      replace(outcome, element("p", { class: "invalid" }, error.message));
    }
  }

  const details = element(
    "details",
    { class: "no-print" },
    element("summary", {}, t("patient.paste_title")),
    element("label", { for: "patient-paste" }, t("patient.paste_label")),
    area,
    element("p", { class: "patient-hint", id: "patient-paste-hint" }, t("patient.paste_hint", { names })),
    element("button", { type: "button", on: { click: apply } }, t("patient.paste_apply")),
    outcome,
  );
  return {
    element: details,
    paste(row) {
      details.open = true;
      area.value = row;
      apply();
    },
  };
}

/**
 * Reads the values of one row, with or without a header. Without one, the cells are in the order of the features.
 *
 * @param {string} text
 * @param {Feature[]} features
 * @param {string} model
 * @returns {Values}
 * @throws {TableError} the message names the column and the value
 */
function pastedValues(text, features, model) {
  if (text.length > MAX_LENGTH) {
    throw new TableError(t("patient.paste_too_long", { max: MAX_LENGTH }));
  }
  const { delimiter, start } = findDelimiter(text);
  const rows = readRecords(text.slice(start), delimiter, 1, MAX_RECORDS, t("patient.paste_too_many"));
  const names = features.map(({ name }) => name);
  const hasHeader = rows.length === 2 || rows[0]?.cells.every((cell) => names.includes(cell.trim()));
  const header = hasHeader ? rows[0].cells.map((cell) => cell.trim()) : names;
  const row = rows[hasHeader ? 1 : 0];
  if (!row) {
    throw new TableError(t("patient.paste_empty"));
  }
  if (!hasHeader && row.cells.length !== names.length) {
    const counts = { count: row.cells.length, expected: names.length, names: names.join(", ") };
    throw new TableError(t("patient.paste_width", counts));
  }
  const { values, errors } = rowValues(row, header.length, featureColumns(header, features, model));
  if (errors.length) {
    throw new TableError(errors.join("; "));
  }
  return values;
}
