/** The columns of a table of patients: which feature each one has, and the values of a row. */

import { t } from "../../language.js";
import { CellError, parseCell } from "./features.js";
import { TableError } from "./table.js";

/** @typedef {import("./features.js").Feature} Feature */
/** @typedef {import("./features.js").Values} Values */
/** @typedef {import("./table.js").Row} Row */

// Minimum similarity for the name of a column to count as a misspelled feature.
const SIMILARITY = 0.8;

/**
 * Finds the column of each feature.
 * @param {string[]} columns
 * @param {Feature[]} features
 * @param {string} model its name, for messages
 * @returns {Map<number, Feature>} the feature of each column that matches one, by index
 * @throws {TableError} a feature has two columns, a column looks like a misspelled feature, a required feature has no
 *   column, or no column is a feature
 */
export function featureColumns(columns, features, model) {
  const byName = new Map(features.map((feature) => [feature.name, feature]));
  for (const name of byName.keys()) {
    const count = columns.filter((column) => column === name).length;
    if (count > 1) {
      throw new TableError(t("patient.table_twice", { column: name, count }));
    }
  }
  const absent = [...byName.keys()].filter((name) => !columns.includes(name));
  for (const column of columns) {
    const name = byName.has(column) ? null : meant(column, absent);
    if (name) {
      throw new TableError(t("patient.table_misspelled", { column, model, name }));
    }
  }
  if (absent.length === byName.size) {
    throw new TableError(t("patient.table_no_feature", { model, names: [...byName.keys()].join(", ") }));
  }
  const needed = absent.filter((name) => byName.get(name)?.imputedAs === undefined);
  if (needed.length) {
    throw new TableError(t("patient.table_needed", { model, names: needed.join(", ") }));
  }
  return new Map(
    columns.flatMap((column, index) => {
      const feature = byName.get(column);
      return feature ? [[index, feature]] : [];
    }),
  );
}

/**
 * @param {string} column
 * @param {string[]} absent
 * @returns {string | null} the feature that a column is probably a misspelling of
 */
function meant(column, absent) {
  const plain = column.toLowerCase().replaceAll(" ", "_").replaceAll("-", "_");
  let best = null;
  let highest = SIMILARITY;
  for (const name of absent) {
    const similarity = ratio(name.toLowerCase(), plain);
    if (similarity >= highest) {
      [best, highest] = [name, similarity];
    }
  }
  return best;
}

/**
 * Returns the similarity of two texts by Ratcliff and Obershelp, as Python's difflib computes it.
 * @param {string} one
 * @param {string} other
 * @returns {number} 0 to 1
 */
function ratio(one, other) {
  // Longer names are no misspellings: this bounds the time for a hostile header.
  if (Math.abs(one.length - other.length) > one.length) {
    return 0;
  }
  return (2 * matches(one, other)) / (one.length + other.length);
}

/**
 * @param {string} one
 * @param {string} other
 * @returns {number} the number of characters in matching blocks
 */
function matches(one, other) {
  let [size, start, from] = [0, 0, 0];
  for (let i = 0; i < one.length; i += 1) {
    for (let j = 0; j < other.length; j += 1) {
      let length = 0;
      while (i + length < one.length && j + length < other.length && one[i + length] === other[j + length]) {
        length += 1;
      }
      if (length > size) {
        [size, start, from] = [length, i, j];
      }
    }
  }
  if (!size) {
    return 0;
  }
  const before = matches(one.slice(0, start), other.slice(0, from));
  return before + size + matches(one.slice(start + size), other.slice(from + size));
}

/**
 * Reads the values of a row.
 * @param {Row} row
 * @param {number} width the number of columns
 * @param {Map<number, Feature>} columns
 * @returns {{values: Values, errors: string[]}} errors name the column and the value
 */
export function rowValues(row, width, columns) {
  /** @type {Values} */
  const values = new Map();
  /** @type {string[]} */
  const errors = [];
  if (row.cells.length !== width) {
    return { values, errors: [t("patient.table_width", { count: row.cells.length, width })] };
  }
  for (const [index, feature] of columns) {
    try {
      values.set(feature.name, parseCell(row.cells[index], feature));
    } catch (error) {
      if (!(error instanceof CellError)) {
        throw error;
      }
      errors.push(columnError(feature.name, error.message));
    }
  }
  return { values, errors };
}

/**
 * @param {string} column
 * @param {string} error
 * @returns {string}
 */
export function columnError(column, error) {
  return t("patient.table_column", { column, error });
}
