// The objects of a result with their sizes, as a table of which one page at a time is in the document.

import { element, replace } from "../../dom.js";
import { number, t } from "../../language.js";

/** @typedef {import("./items.js").Item} Item */
/** @typedef {import("./columns.js").Column} Column */

const PAGE = 50; // rows

/**
 * Returns the table; `show` replaces the objects, and `select` marks one and shows its page.
 * @param {Column[]} columns
 * @param {(item: Item) => void} onSelect
 */
export function objectTable(columns, onSelect) {
  /** @type {Item[]} */
  let items = [];
  /** @type {Item | null} */
  let selected = null;
  let sorted = { column: columns[0], descending: false };
  let first = 0;
  const headers = columns.map((column) =>
    element(
      "th",
      { scope: "col", class: column.numeric ? "numeric" : null },
      element("button", { type: "button", class: "sort", on: { click: () => sort(column) } }, column.header),
    ),
  );
  const body = element("tbody", {});
  const position = element("span", { role: "status" });
  const button = (/** @type {string} */ key, /** @type {number} */ step) =>
    element("button", { type: "button", on: { click: () => turn(first + step * PAGE) } }, t(key));
  const previous = button("segmentation.previous", -1);
  const next = button("segmentation.next", 1);
  const pages = element("div", { class: "row no-print" }, previous, next, position);
  const scroller = element(
    "div",
    { class: "table-scroll files-list segmentation-objects", tabindex: 0, role: "region", "aria-label": t("segmentation.objects") },
    element(
      "table",
      {},
      element("caption", { class: "visually-hidden" }, t("segmentation.objects")),
      element("thead", {}, element("tr", {}, ...headers)),
      body,
    ),
  );

  /** @param {Column} column */
  function sort(column) {
    const again = sorted.column === column;
    sorted = { column, descending: again ? !sorted.descending : column.numeric && column !== columns[0] };
    order();
    turn(0);
  }

  function order() {
    const { column, descending } = sorted;
    const compare = (/** @type {Item} */ one, /** @type {Item} */ other) => {
      const [a, b] = [column.value(one), column.value(other)];
      return typeof a === "string" ? a.localeCompare(String(b)) : a - Number(b);
    };
    items.sort((one, other) => (descending ? -compare(one, other) : compare(one, other)));
    headers.forEach((header, index) => {
      if (columns[index] === column) header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    });
  }

  /** @param {number} start */
  function turn(start) {
    first = start;
    const last = Math.min(first + PAGE, items.length);
    replace(body, ...items.slice(first, last).map(row));
    scroller.scrollTop = 0;
    previous.disabled = first === 0;
    next.disabled = last === items.length;
    pages.hidden = items.length <= PAGE;
    const values = { first: number(first + 1), last: number(last), count: number(items.length) };
    replace(position, t("segmentation.objects_of", values));
  }

  /** @param {Item} item */
  function row(item) {
    const [name, ...others] = columns;
    return element(
      "tr",
      { "aria-current": item === selected ? "true" : null, on: { click: () => onSelect(item) } },
      element("th", { scope: "row", class: "numeric" }, element("button", { type: "button", class: "link" }, name.text(item))),
      ...others.map((column) => element("td", { class: column.numeric ? "numeric" : null }, column.text(item))),
    );
  }

  return {
    node: element("div", {}, scroller, pages),
    /** @param {Item[]} shown */
    show(shown) {
      items = [...shown];
      order();
      turn(0);
    },
    /** @param {Item | null} item */
    select(item) {
      selected = item;
      const index = item ? items.indexOf(item) : -1;
      const page = Math.floor(index / PAGE) * PAGE;
      if (index >= 0 && page !== first) turn(page);
      [...body.rows].forEach((one, at) => {
        if (first + at === index) one.setAttribute("aria-current", "true");
        else one.removeAttribute("aria-current");
      });
      const current = body.rows[index - first];
      if (current) keepVisible(scroller, current);
    },
  };
}

/**
 * Scrolls the table, but not the page, so that a row is visible.
 * @param {HTMLElement} scroller
 * @param {HTMLElement} row
 */
function keepVisible(scroller, row) {
  const head = scroller.querySelector("thead")?.offsetHeight ?? 0;
  const { top, bottom } = row.getBoundingClientRect();
  const start = scroller.getBoundingClientRect().top;
  const end = start + scroller.clientHeight;
  if (top < start + head) scroller.scrollTop -= start + head - top;
  if (bottom > end) scroller.scrollTop += bottom - end;
}
