/** Sends patients in batches, such that a patient that the server refuses does not fail the others. */

import { ApiError } from "../../api.js";

/** @typedef {import("../../api.js").Violation} Violation */
/** @typedef {import("./features.js").Values} Values */
/** @typedef {import("./result.js").PatientResult} PatientResult */
/** @typedef {PatientResult | Violation[] | ApiError} Outcome */

// Statuses that may be caused by a single patient, or by the size of the request as a whole.
const CAUSED_BY_PATIENTS = ["INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "OUT_OF_RANGE", "DATA_LOSS"];
const PATIENT = /^patients\[(\d+)\]/;
const FEATURE = /^patients\[\d+\]\.features\[(.+)\]$/;
const TOO_LARGE = 413;

/**
 * Sends patients together; on failure, again without those that the server named, or else in halves.
 *
 * @param {Values[]} patients
 * @param {(patients: Values[]) => Promise<PatientResult[]>} send
 * @returns {Promise<Outcome[]>} for each patient its result, what is wrong with it, or the error of a request for it alone
 * @throws {ApiError} a call failed for a reason unrelated to the patients
 */
export async function outcomes(patients, send) {
  if (!patients.length) {
    return [];
  }
  try {
    return await send(patients);
  } catch (error) {
    if (!(error instanceof ApiError) || !isCausedByPatients(error)) {
      throw error;
    }
    const refused = byPatient(error, patients.length);
    if (refused.size) {
      const rest = await outcomes(patients.filter((_, index) => !refused.has(index)), send);
      return patients.map((_, index) => refused.get(index) ?? /** @type {Outcome} */ (rest.shift()));
    }
    if (patients.length === 1) {
      if (error.code === "INVALID_ARGUMENT") {
        throw error; // not about the patient, so the same for all
      }
      return [error];
    }
  }
  const middle = Math.floor(patients.length / 2);
  const first = await outcomes(patients.slice(0, middle), send);
  return [...first, ...(await outcomes(patients.slice(middle), send))];
}

/** @param {ApiError} error */
function isCausedByPatients({ code, httpStatus }) {
  return CAUSED_BY_PATIENTS.includes(code) || httpStatus === TOO_LARGE;
}

/**
 * Returns the violations of each patient; empty if some are not about a patient.
 *
 * @param {ApiError} error
 * @param {number} count
 */
function byPatient({ code, violations }, count) {
  /** @type {Map<number, Violation[]>} */
  const refused = new Map();
  for (const violation of code === "INVALID_ARGUMENT" ? violations : []) {
    const index = Number(PATIENT.exec(violation.field)?.[1] ?? NaN);
    if (!(index < count)) {
      return new Map();
    }
    refused.set(index, [...(refused.get(index) ?? []), violation]);
  }
  return refused;
}

/**
 * @param {Violation} violation
 * @returns {string | null} the name of the feature that it is about
 */
export function featureOf({ field }) {
  return FEATURE.exec(field)?.[1] ?? null;
}
