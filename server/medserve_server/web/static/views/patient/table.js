/** Text of tables of patients, read by the rules of docs/csv.md. Keeps the line of each record, for errors. */

import { t } from "../../language.js";
import { quoted } from "./features.js";

/** @typedef {{line: number, cells: string[]}} Row The line where the record starts, from 1, and its cells. */
/** @typedef {{delimiter: string, columns: string[], rows: Row[]}} PatientTable */

const DELIMITERS = [",", ";", "\t"];
// The line that declares the delimiter to Excel; Excel itself may have padded it with delimiters.
const SEP_LINE = /^"?sep=(.)"?\1*(?:\r\n|\r|\n)/i;

const END = /\r\n|\r|\n/g;

/** A text that is not a table of patients; the message names the line or the column. */
export class TableError extends Error {}

/**
 * Reads the text of a CSV file with a header.
 * @param {string} text
 * @param {number} maxRows
 * @returns {PatientTable}
 * @throws {TableError}
 */
export function readTable(text, maxRows) {
  if (text.includes("\0")) {
    throw new TableError(t("patient.table_nul"));
  }
  const { delimiter, start } = findDelimiter(text);
  const [header, ...rows] = readRecords(
    text.slice(start),
    delimiter,
    start ? 2 : 1,
    maxRows + 1,
    t("patient.table_too_many", { max: maxRows }),
  );
  if (!rows.length) {
    throw new TableError(t("patient.table_no_rows"));
  }
  return { delimiter, columns: header.cells.map((name) => name.trim()), rows };
}

/**
 * Returns the delimiter that line `sep=;` declares, or else the one that splits the first record into the most cells.
 * @param {string} text
 * @returns {{delimiter: string, start: number}} and the offset of the first record
 */
export function findDelimiter(text) {
  const declared = SEP_LINE.exec(text);
  if (!declared) {
    const counts = DELIMITERS.map((one) => firstRecordLength(text, one));
    return { delimiter: DELIMITERS[counts.indexOf(Math.max(...counts))], start: 0 };
  }
  if (!DELIMITERS.includes(declared[1])) {
    throw new TableError(t("patient.table_sep", { sep: declared[1] }));
  }
  return { delimiter: declared[1], start: declared[0].length };
}

/**
 * @param {string} text
 * @param {string} delimiter
 * @returns {number} 0 if the record is not well-formed with this delimiter
 */
function firstRecordLength(text, delimiter) {
  try {
    for (const { cells } of records(text, delimiter, 1)) {
      return cells.length;
    }
  } catch (error) {
    if (!(error instanceof TableError)) {
      throw error;
    }
  }
  return 0;
}

/**
 * Reads all records that are not empty.
 * @param {string} text
 * @param {string} delimiter
 * @param {number} line the number of the first line
 * @param {number} max
 * @param {string} tooMany the message if there are more
 * @returns {Row[]}
 * @throws {TableError} the text is not well-formed, or has more records
 */
export function readRecords(text, delimiter, line, max, tooMany) {
  const rows = [];
  for (const row of records(text, delimiter, line)) {
    if (rows.length === max) {
      throw new TableError(tooMany);
    }
    rows.push(row);
  }
  return rows;
}

/**
 * Splits a text as Python's csv.reader does with strict=True; skips empty lines.
 * @param {string} text
 * @param {string} delimiter
 * @param {number} line the number of the first line
 * @returns {Generator<Row>}
 * @throws {TableError}
 */
function* records(text, delimiter, line) {
  const stop = delimiter === "\t" ? /[\t\r\n]/g : delimiter === ";" ? /[;\r\n]/g : /[,\r\n]/g;
  let at = 0;
  let started = line;
  /** @type {string[]} */
  let cells = [];
  while (at < text.length) {
    const blank = !cells.length && isEnd(text[at], "");
    if (text[at] === '"') {
      const { cell, after } = quotedCell(text, at, delimiter, started);
      line += cell.match(END)?.length ?? 0;
      cells.push(cell);
      at = after;
    } else {
      stop.lastIndex = at;
      const index = stop.exec(text)?.index ?? text.length;
      cells.push(text.slice(at, index));
      at = index;
    }
    if (text[at] === delimiter) {
      at += 1;
      if (at < text.length && !isEnd(text[at], "")) {
        continue;
      }
      cells.push("");
    }
    at += text.startsWith("\r\n", at) ? 2 : 1;
    line += 1;
    if (!blank) {
      yield { line: started, cells };
    }
    cells = [];
    started = line;
  }
}

/**
 * Reads a cell between quotes; a quote within it is doubled.
 * @param {string} text
 * @param {number} start the offset of the opening quote
 * @param {string} delimiter
 * @param {number} line the line of the record, for errors
 * @returns {{cell: string, after: number}} and the offset after the closing quote
 * @throws {TableError}
 */
function quotedCell(text, start, delimiter, line) {
  let cell = "";
  for (let from = start + 1; ; ) {
    const close = text.indexOf('"', from);
    if (close < 0) {
      throw new TableError(t("patient.table_unclosed", { line }));
    }
    cell += text.slice(from, close);
    if (text[close + 1] !== '"') {
      if (close + 1 < text.length && !isEnd(text[close + 1], delimiter)) {
        throw new TableError(t("patient.table_after_quote", { line, character: quoted(text[close + 1]) }));
      }
      return { cell, after: close + 1 };
    }
    cell += '"';
    from = close + 2;
  }
}

/**
 * @param {string} character
 * @param {string} delimiter
 */
function isEnd(character, delimiter) {
  return character === delimiter || character === "\r" || character === "\n";
}

/**
 * Returns the text of a table; cells are quoted where they must be.
 *
 * @param {string[][]} rows
 * @param {string} delimiter
 */
export function formatTable(rows, delimiter) {
  const special = new RegExp(`["\r\n${delimiter}]`);
  const cell = (/** @type {string} */ text) => (special.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows.map((row) => `${row.map(cell).join(delimiter)}\n`).join("");
}
