// The files with their results, as a table and as CSV.

import { element, replace } from "../../dom.js";
import { t } from "../../language.js";
import { errorText } from "./problems.js";
import { warningName } from "./warnings.js";

/** @typedef {import("./warnings.js").Warning} Warning */
/**
 * @template R
 * @typedef {import("./worklist.js").Entry<R>} Entry
 */
/**
 * @template R
 * @typedef {object} Column  shows a value of each result
 * @property {string} header
 * @property {(result: R) => string} text
 * @property {(result: R) => number | string} order  numbers are sorted in descending order
 * @property {boolean} [numeric]  whether the text is a number
 */

/**
 * Returns the table, whose `update` shows changes of one file, and `refresh` those of all.
 * @template {{warnings: Warning[]}} R
 * @param {Entry<R>[]} entries
 * @param {Column<R>[]} columns
 * @param {(entry: Entry<R>) => void} onSelect
 */
export function fileTable(entries, columns, onSelect) {
  /** @type {Map<Entry<R>, HTMLTableRowElement>} */
  const rows = new Map();
  /** @type {((entry: Entry<R>, index: number) => number | string | null)[]} */
  const orders = [
    (_, index) => -index,
    ({ file }) => file.name,
    ...columns.map(({ order }) => (/** @type {Entry<R>} */ { result }) => result && order(result)),
  ];
  let sorted = 0;
  const body = element("tbody", {});
  const heads = [
    { header: t("files.column_order"), numeric: true },
    { header: t("files.column_file"), numeric: false },
    ...columns,
  ];
  const headers = heads.map(({ header, numeric }, index) =>
    element(
      "th",
      { scope: "col", class: numeric ? "numeric" : null },
      element("button", { type: "button", class: "sort", on: { click: () => sort(index) } }, header),
    ),
  );

  /** @param {number} column */
  function sort(column) {
    sorted = column;
    headers.forEach((header, index) => {
      const order = index > 1 && heads[index].numeric ? "descending" : "ascending";
      if (index === column) header.setAttribute("aria-sort", order);
      else header.removeAttribute("aria-sort");
    });
    refresh();
  }

  /** @param {Entry<R>} entry */
  function update(entry) {
    const known = rows.get(entry);
    const row = known ?? element("tr", { on: { click: () => onSelect(entry) } });
    if (!known) {
      rows.set(entry, row);
      body.append(row);
      const name = element("button", { type: "button", class: "link" }, entry.file.name);
      const order = element("td", { class: "numeric" }, String(entries.indexOf(entry) + 1));
      row.append(order, element("th", { scope: "row" }, name));
    }
    [...row.children].slice(2).forEach((cell) => cell.remove()); // keeps the focus on the name
    row.append(...cells(entry, columns));
  }

  function refresh() {
    for (const entry of rows.keys()) if (!entries.includes(entry)) rows.delete(entry);
    entries.forEach(update);
    const keys = new Map(entries.map((entry, index) => [entry, orders[sorted](entry, index)]));
    const inOrder = [...entries].sort((one, other) => compare(keys.get(one) ?? null, keys.get(other) ?? null));
    const focused = document.activeElement;
    replace(body, ...inOrder.map((entry) => rows.get(entry) ?? null));
    if (focused instanceof HTMLElement && body.contains(focused)) focused.focus({ preventScroll: true });
  }

  sort(0);
  return {
    node: element(
      "div",
      { class: "table-scroll files-list", tabindex: 0, role: "region", "aria-label": t("files.files") },
      element(
        "table",
        {},
        element("caption", { class: "visually-hidden" }, t("files.files")),
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            ...headers,
            ...["files.warnings", "files.status"].map((key) => element("th", { scope: "col" }, t(key))),
          ),
        ),
        body,
      ),
    ),
    update,
    refresh,
    /** @param {Entry<R> | null} entry */
    select(entry) {
      for (const [one, row] of rows) {
        if (one === entry) row.setAttribute("aria-current", "true");
        else row.removeAttribute("aria-current");
      }
    },
  };
}

/**
 * Compares texts in ascending and numbers in descending order; null, for no result, comes last.
 * @param {number | string | null} one
 * @param {number | string | null} other
 */
function compare(one, other) {
  if (one === null || other === null) return Number(one === null) - Number(other === null);
  if (typeof one === "string") return one.localeCompare(String(other), undefined, { numeric: true });
  return Number(other) - one;
}

/**
 * @template {{warnings: Warning[]}} R
 * @param {Entry<R>} entry
 * @param {Column<R>[]} columns
 */
function cells({ status, result, error }, columns) {
  const done = status === "done" ? result : null;
  const state = error ? errorText(error) : t(`files.status_${status}`);
  return [
    ...columns.map(({ text, numeric }) => element("td", { class: numeric ? "numeric" : "" }, done ? text(done) : "")),
    element("td", {}, done ? done.warnings.map(({ kind }) => warningName(kind)).join(" · ") : ""),
    element("td", { class: error ? "invalid" : "muted" }, state),
  ];
}

/**
 * Returns the rows of the CSV file, with numbers as the server sent them.
 * @template {{warnings: Warning[]}} R
 * @param {Entry<R>[]} entries
 * @param {string[]} names  of the columns between the frame and the warnings
 * @param {(result: R) => (string | number | null)[]} values  of these columns
 * @returns {(string | number | null)[][]}
 */
export function fileRows(entries, names, values) {
  const rows = entries.map(({ file, frame, result: latest, error, status }) => {
    const result = status === "done" ? latest : null; // otherwise it may be that of another frame
    return [
      file.name,
      frame,
      ...(result ? values(result) : names.map(() => null)),
      result ? result.warnings.map(({ kind, message }) => `${kind.replace("KIND_", "")}: ${message}`).join("; ") : null,
      error ? errorText(error) : status === "done" ? null : t(`files.status_${status}`),
    ];
  });
  return [["file", "frame", ...names, "warnings", "error"], ...rows];
}
