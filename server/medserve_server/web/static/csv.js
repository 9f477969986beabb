/** Tables as CSV (RFC 4180), and saving of files. */

import { element } from "./dom.js";

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
