/** Tables as text: CSV (RFC 4180), and rows pasted from a spreadsheet. */

import { element } from "./dom.js";

/**
 * Returns the rows of a table. Cells are separated by tabs, semicolons or commas, whichever the first line contains
 * (in this order); lines without any cell are skipped.
 *
 * @param {string} text
 * @returns {string[][]}
 */
export function parseCsv(text) {
  const plain = text.replace(/^\uFEFF/, "");
  const separator = separatorOf(plain);
  /** @type {string[][]} */
  const rows = [];
  /** @type {string[]} */
  let row = [];
  let cell = "";
  let quoted = false;
  for (let index = 0; index < plain.length; index++) {
    const letter = plain[index];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (plain[index + 1] === '"') cell += plain[++index];
      else quoted = false;
    } else if (letter === '"' && cell === "") {
      quoted = true;
    } else if (letter === separator) {
      row.push(cell);
      cell = "";
    } else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && plain[index + 1] === "\n") index++;
      row.push(cell);
      rows.push(row);
      row = [];
      cell = "";
    } else {
      cell += letter;
    }
  }
  row.push(cell);
  rows.push(row);
  return rows.filter((cells) => cells.length > 1 || cells[0] !== "");
}

/** @param {string} text */
function separatorOf(text) {
  const first = text.split(/[\r\n]/, 1)[0];
  return ["\t", ";"].find((separator) => first.includes(separator)) ?? ",";
}

/**
 * Returns rows as CSV. Text that a spreadsheet would run as a formula gets a leading apostrophe.
 *
 * @param {(string | number | null)[][]} rows null is an empty cell
 */
export function formatCsv(rows) {
  return rows.map((row) => row.map(formatCell).join(",") + "\r\n").join("");
}

/** @param {string | number | null} cell */
function formatCell(cell) {
  if (cell === null) return "";
  const text = typeof cell === "string" && /^[=+\-@\t\r]/.test(cell) && isNaN(Number(cell)) ? `'${cell}` : String(cell);
  return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * Saves a file.
 *
 * @param {string} name
 * @param {string | Blob} content text is saved as CSV
 */
export function download(name, content) {
  const blob = typeof content === "string" ? new Blob(["\uFEFF", content], { type: "text/csv;charset=utf-8" }) : content;
  const url = URL.createObjectURL(blob);
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads the file after the click
}
