// Types of the image API in JSON, and calls of Classify.

import { modelPath, post } from "../../api.js";
import { base64, checkReadable } from "../files/content.js";

/** @typedef {{label: string, probability: number}} LabelProbability */
/** @typedef {{label: string, operatingPoint: string, threshold: number, positiveLabel: string}} Decision */
/** @typedef {{label: string, height: number, width: number, values: number[]}} ReasonMap */
/** @typedef {{layer: string, channels: number, height: number, width: number, values: string}} FeatureMaps */
/**
 * @typedef {object} ImageResult
 * @property {LabelProbability[]} labels
 * @property {Decision} decision
 * @property {{kind: string, message: string}[]} warnings
 * @property {number} [uncertainty]
 * @property {number} [novelty]
 * @property {ReasonMap} [occlusion]
 * @property {ReasonMap} [classActivation]
 * @property {FeatureMaps[]} featureMaps
 * @property {string} [sopInstanceUid]
 * @property {string} previewPng  base64
 * @property {number} frames  0 if the server does not report it
 */
/** @typedef {{label?: string, occlusion?: boolean, classActivation?: boolean, featureMaps?: string[]}} Reasons */
/** @typedef {{name: string, version: string, title: string}} Model */

/**
 * Classifies one image. Without frame and reasons the file itself is the body, which is smaller and read faster than
 * JSON.
 * @param {Model} model
 * @param {import("../files/picker.js").Opened} opened
 * @param {number} frame
 * @param {Reasons | null} reasons
 * @param {AbortSignal} signal
 * @returns {Promise<ImageResult>}
 * @throws {import("../files/content.js").UnreadableFile}
 */
export async function classify(model, { file, format }, frame, reasons, signal) {
  const path = modelPath(model, "classify");
  if (frame === 0 && reasons === null) {
    await checkReadable(file);
    const { results } = await post(`${path}?preview=true`, file, { signal, contentType: format.contentType });
    return results[0];
  }
  const image = { encoded: await base64(file), ...(frame > 0 ? { frame } : {}) };
  // As a Blob: Chromium took 0.6 s longer to send a text of 11 MB.
  const body = new Blob([JSON.stringify({ images: [image], ...(reasons ? { reasons } : { preview: true }) })]);
  const { results } = await post(path, body, { signal, contentType: "application/json" });
  return results[0];
}
