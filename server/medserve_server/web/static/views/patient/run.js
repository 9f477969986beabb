/** Predicts the risks of a table of patients, and writes them as `medserve risk` does. */

import { ApiError, modelPath, post } from "../../api.js";
import { t } from "../../language.js";
import { featureOf, outcomes } from "./batches.js";
import { columnError, featureColumns, rowValues } from "./columns.js";
import { toPatient } from "./features.js";
import { TableError, formatTable } from "./table.js";

/** @typedef {import("./features.js").RiskTask} RiskTask */
/** @typedef {import("./features.js").Feature} Feature */
/** @typedef {import("./result.js").PatientResult} PatientResult */
/** @typedef {import("./table.js").PatientTable} PatientTable */
/** @typedef {{result: PatientResult | null, errors: string[]}} Scored */
/**
 * @typedef {object} Run
 * @property {PatientTable} table
 * @property {Map<number, Feature>} columns
 * @property {string[]} added names of the columns of the results
 * @property {Scored[]} scored one for each row so far
 */

const BATCH = 256;

/**
 * Prepares a run.
 *
 * @param {PatientTable} table
 * @param {RiskTask} task
 * @param {string} model its name, for messages
 * @returns {Run}
 * @throws {TableError} the table is not one of patients for this model
 */
export function createRun(table, task, model) {
  const columns = featureColumns(table.columns, task.features, model);
  const added = addedColumns(task);
  const clash = table.columns.find((column) => added.includes(column));
  if (clash !== undefined) {
    throw new TableError(t("patient.many_clash", { column: clash }));
  }
  return { table, columns, added, scored: [] };
}

/** @param {RiskTask} task */
function addedColumns({ horizons, members }) {
  const labels = horizons.map(({ label }) => label.replaceAll(" ", "_"));
  const spreads = members > 1 ? labels.map((label) => `uncertainty_${label}`) : [];
  return [...labels.map((label) => `risk_${label}`), ...spreads, "risk_group", "warnings", "error"];
}

/**
 * Scores the rows that are not scored yet, batch by batch.
 *
 * @param {Run} run
 * @param {{name: string, version: string}} model
 * @param {AbortSignal} signal
 * @param {() => void} progressed called after each batch
 * @throws {ApiError} a call failed; call again to continue
 * @throws {DOMException} AbortError: the signal was aborted; call again to continue
 */
export async function continueRun({ table, columns, scored }, model, signal, progressed) {
  const send = async (/** @type {import("./features.js").Values[]} */ patients) => {
    const body = { patients: patients.map(toPatient) };
    return (await post(modelPath(model, "predictRisk"), body, { signal })).results;
  };
  while (scored.length < table.rows.length) {
    const rows = table.rows.slice(scored.length, scored.length + BATCH);
    const parsed = rows.map((row) => rowValues(row, table.columns.length, columns));
    const answers = await outcomes(parsed.filter(({ errors }) => !errors.length).map(({ values }) => values), send);
    for (const { errors } of parsed) {
      scored.push(errors.length ? { result: null, errors } : toScored(answers.shift()));
    }
    progressed();
  }
}

/** @param {import("./batches.js").Outcome | undefined} outcome */
function toScored(outcome) {
  if (outcome instanceof ApiError) {
    return { result: null, errors: [outcome.message || outcome.code] };
  }
  if (Array.isArray(outcome)) {
    const errors = outcome.map((violation) => {
      const feature = featureOf(violation);
      return feature === null ? violation.description : columnError(feature, violation.description);
    });
    return { result: null, errors };
  }
  return { result: outcome ?? null, errors: [] };
}

/**
 * Returns the results as a CSV file with the columns of `medserve risk -o`.
 *
 * @param {Run} run
 */
export function resultsFile({ table, added, scored }) {
  const width = table.columns.length;
  const rows = table.rows.map(({ cells }, index) => {
    // A row whose length differs from the header's: its error says so, and the new columns stay aligned.
    const carried = Array.from({ length: width }, (_, column) => cells[column] ?? "");
    return [...carried, ...addedCells(scored[index], added.length)];
  });
  return formatTable([[...table.columns, ...added], ...rows], table.delimiter);
}

/**
 * @param {Scored} scored
 * @param {number} count
 */
function addedCells({ result, errors }, count) {
  if (!result) {
    return [...Array(count - 1).fill(""), errors.join("; ")];
  }
  const risks = result.risks.map(({ risk }) => risk);
  const spreads = result.risks.flatMap(({ uncertainty }) => (uncertainty === undefined ? [] : [uncertainty]));
  const numbers = [...risks, ...spreads].map((one) => one.toFixed(6));
  return [...numbers, result.riskGroup, result.warnings.map(({ message }) => message).join("; "), ""];
}
