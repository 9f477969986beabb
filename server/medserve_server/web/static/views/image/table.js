// The files with their results, as a table and as CSV.

import { element, replace } from "../../dom.js";
import { hasText, percent, t } from "../../language.js";
import { decide } from "./decision.js";
import { UnreadableFile } from "./requests.js";
import { warningName } from "./result.js";

/** @typedef {import("./worklist.js").Entry} Entry */
/** @typedef {import("./decision.js").Point} Point */

/**
 * Returns an error in words, with the server's message.
 * @param {Error} error
 */
export function errorText(error) {
  if (error instanceof UnreadableFile) return t("image.unreadable");
  const key = `error.${"code" in error ? error.code : "PAGE"}`;
  return [hasText(key) ? t(key) : "", error.message].filter(Boolean).join(" ");
}

/**
 * The columns that can be sorted, by what they are sorted by.
 * @type {Record<string, (entry: Entry, index: number, point: Point | null) => number | string>}
 */
const ORDERS = {
  order: (_, index) => index,
  file: ({ file }) => file.name,
  decision: ({ result }, _, point) => (result ? decide(result.labels, point).label : ""),
  probability: ({ result }, _, point) => -(result ? shownProbability(result, point) : -1),
  uncertainty: ({ result }) => -(result?.uncertainty ?? -1),
};

const DESCENDING = ["probability", "uncertainty"];

/**
 * The probability of the operating point's label, which orders images by suspicion; without one, that of the decision.
 * @param {import("./requests.js").ImageResult} result
 * @param {Point | null} point
 */
function shownProbability({ labels }, point) {
  const positive = labels.find(({ label }) => label === point?.positiveLabel);
  return (positive ?? decide(labels, point)).probability;
}

/**
 * Returns the table, whose `update` shows changes of one file, and `refresh` those of all.
 * @param {Entry[]} entries
 * @param {() => Point | null} currentPoint
 * @param {(entry: Entry) => void} onSelect
 */
export function fileTable(entries, currentPoint, onSelect) {
  /** @type {Map<Entry, HTMLTableRowElement>} */
  const rows = new Map();
  let sorted = "order";
  const body = element("tbody", {});
  const positive = currentPoint()?.positiveLabel;
  /** @type {[string, string][]} */
  const columns = [
    ["order", t("image.column_order")],
    ["file", t("image.column_file")],
    ["decision", t("image.decision")],
    ["probability", positive ? t("image.probability_of", { label: positive }) : t("image.probability")],
    ["uncertainty", t("image.column_uncertainty")],
  ];
  const headers = columns.map(([key, text]) =>
    element(
      "th",
      { scope: "col", class: ["order", ...DESCENDING].includes(key) ? "numeric" : null },
      element("button", { type: "button", class: "sort", on: { click: () => sort(key) } }, text),
    ),
  );

  /** @param {string} key */
  function sort(key) {
    sorted = key;
    columns.forEach(([column], index) => {
      const order = DESCENDING.includes(key) ? "descending" : "ascending";
      if (column === key) headers[index].setAttribute("aria-sort", order);
      else headers[index].removeAttribute("aria-sort");
    });
    refresh();
  }

  /** @param {Entry} entry */
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
    row.append(...cells(entry, currentPoint()));
  }

  function refresh() {
    const point = currentPoint();
    for (const entry of rows.keys()) if (!entries.includes(entry)) rows.delete(entry);
    entries.forEach(update);
    const keys = new Map(entries.map((entry, index) => [entry, ORDERS[sorted](entry, index, point)]));
    const compare = (/** @type {any} */ one, /** @type {any} */ other) =>
      typeof one === "string" ? one.localeCompare(other, undefined, { numeric: true }) : one - other;
    const inOrder = [...entries].sort((one, other) => compare(keys.get(one), keys.get(other)));
    const focused = document.activeElement;
    replace(body, ...inOrder.map((entry) => rows.get(entry) ?? null));
    if (focused instanceof HTMLElement && body.contains(focused)) focused.focus({ preventScroll: true });
  }

  sort("order");
  return {
    node: element(
      "div",
      { class: "table-scroll image-list", tabindex: 0, role: "region", "aria-label": t("image.files") },
      element(
        "table",
        {},
        element("caption", { class: "visually-hidden" }, t("image.files")),
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            ...headers,
            ...["image.warnings", "image.status"].map((key) => element("th", { scope: "col" }, t(key))),
          ),
        ),
        body,
      ),
    ),
    update,
    refresh,
    /** @param {Entry | null} entry */
    select(entry) {
      for (const [one, row] of rows) {
        if (one === entry) row.setAttribute("aria-current", "true");
        else row.removeAttribute("aria-current");
      }
    },
  };
}

/**
 * @param {Entry} entry
 * @param {Point | null} point
 */
function cells({ status, result, error }, point) {
  const state = error ? errorText(error) : t(`image.status_${status}`);
  const values =
    result && status === "done"
      ? [
          decide(result.labels, point).label,
          percent(shownProbability(result, point)),
          result.uncertainty === undefined ? "" : percent(result.uncertainty),
          result.warnings.map(({ kind }) => warningName(kind)).join(" · "),
        ]
      : ["", "", "", ""];
  return [
    ...values.map((text, index) => element("td", { class: index === 1 || index === 2 ? "numeric" : "" }, text)),
    element("td", { class: error ? "invalid" : "muted" }, state),
  ];
}

/**
 * Returns the rows of the CSV file: numbers as the server sent them, one column for each label.
 * @param {Entry[]} entries
 * @param {string[]} labels
 * @param {Point | null} point
 * @returns {(string | number | null)[][]}
 */
export function csvRows(entries, labels, point) {
  const columns = labels.map((label) => `probability_${label}`);
  const head = ["file", "frame", "decision", "operating_point", "threshold", ...columns];
  const rows = entries.map(({ file, frame, result: latest, error, status }) => {
    const result = status === "done" ? latest : null; // otherwise it may be that of another frame
    const probability = (/** @type {string} */ name) =>
      result?.labels.find(({ label }) => label === name)?.probability ?? null;
    return [
      file.name,
      frame,
      result ? decide(result.labels, point).label : null,
      result ? (point?.name ?? null) : null,
      result ? (point?.threshold ?? null) : null,
      ...labels.map(probability),
      result?.uncertainty ?? null,
      result?.novelty ?? null,
      result ? result.warnings.map(({ kind, message }) => `${kind.replace("KIND_", "")}: ${message}`).join("; ") : null,
      error ? errorText(error) : status === "done" ? null : t(`image.status_${status}`),
    ];
  });
  return [[...head, "uncertainty", "novelty", "warnings", "error"], ...rows];
}
