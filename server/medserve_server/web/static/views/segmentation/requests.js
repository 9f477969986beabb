// Types of the segmentation API in JSON, and calls of Segment.

import { modelPath, post } from "../../api.js";
import { base64, checkReadable } from "../files/content.js";

/** @typedef {{low: number, high: number, coverage: number}} Interval */
/** @typedef {{rowMm: number, columnMm: number, source?: string}} Spacing */
/**
 * @typedef {object} SegmentedObject  lengths in mm if the pixel spacing is known, and in pixels if not
 * @property {number} id
 * @property {{left: number, top: number, width: number, height: number}} box
 * @property {number} centroidX
 * @property {number} centroidY
 * @property {number} areaPx
 * @property {number} area
 * @property {number} equivalentDiameter
 * @property {number} majorAxis
 * @property {number} minorAxis
 * @property {number} perimeter
 * @property {number} circularity
 * @property {number} meanProbability
 * @property {boolean} touchesBorder
 * @property {number[]} contour  x and y of the corners of its outer outline in turn
 * @property {string} runLength  its pixels, see run_length.js
 */
/**
 * @typedef {object} LabelResult
 * @property {string} label
 * @property {number} areaPx
 * @property {number} [areaMm2]
 * @property {number} areaShare
 * @property {number} count
 * @property {Interval} [countInterval]
 * @property {SegmentedObject[]} objects  largest first
 * @property {{name: string, unit: string, value: number, interval?: Interval}[]} measures
 * @property {string} probabilityPng  base64
 */
/**
 * @typedef {object} SegmentResult
 * @property {number} height
 * @property {number} width
 * @property {LabelResult[]} labels
 * @property {Spacing} [pixelSpacing]
 * @property {import("../files/warnings.js").Warning[]} warnings
 * @property {number} [uncertainty]
 * @property {string} uncertaintyPng  base64
 * @property {number} [novelty]
 * @property {string} [sopInstanceUid]
 * @property {string} previewPng  base64
 * @property {number} frames
 * @property {number} tiles
 */
/**
 * @typedef {object} Task  the manifest's ImageSegmentationTask
 * @property {{name: string, largestOnly: boolean, measures: {name: string}[]}[]} labels
 * @property {number} members
 * @property {{threshold: number}} [novelty]
 */
/** @typedef {import("../files/worklist.js").Entry<SegmentResult>} Entry */
/** @typedef {{name: string, version: string}} Model */

/**
 * Returns what a request asks for besides objects and sizes.
 * @param {Task} task
 * @param {Entry} entry
 */
function wanted(task, { format }) {
  return {
    contours: true,
    masks: "MASK_FORMAT_RUN_LENGTH",
    probabilityMaps: true,
    ...(task.members > 1 ? { uncertaintyMaps: true } : {}),
    ...(format.shown ? {} : { preview: true }),
  };
}

/**
 * Segments a frame of a file. The spacing is sent if the file does not state one; whether a DICOM file does is known
 * from a first answer, since the server refuses a request that contradicts the file.
 * @param {Model} model
 * @param {Task} task
 * @param {Entry} entry
 * @param {number} frame
 * @param {Spacing | null} spacing
 * @param {AbortSignal} signal
 * @returns {Promise<SegmentResult>}
 * @throws {import("../files/content.js").UnreadableFile}
 */
export async function segment(model, task, entry, frame, spacing, signal) {
  if (entry.format.name !== "DICOM") return send(model, task, entry, frame, spacing, signal);
  const result = await send(model, task, entry, frame, null, signal);
  return spacing && !result.pixelSpacing ? send(model, task, entry, frame, spacing, signal) : result;
}

/**
 * Without frame and spacing the file itself is the body, which is smaller and read faster than JSON.
 * @param {Model} model
 * @param {Task} task
 * @param {Entry} entry
 * @param {number} frame
 * @param {Spacing | null} spacing
 * @param {AbortSignal} signal
 * @returns {Promise<SegmentResult>}
 */
async function send(model, task, entry, frame, spacing, signal) {
  const { file, format } = entry;
  const path = modelPath(model, "segment");
  const options = wanted(task, entry);
  if (frame === 0 && spacing === null) {
    await checkReadable(file);
    const query = Object.entries(options).map(([name, value]) => `${name}=${value}`);
    const { results } = await post(`${path}?${query.join("&")}`, file, { signal, contentType: format.contentType });
    return results[0];
  }
  const image = { encoded: await base64(file), ...(frame > 0 ? { frame } : {}) };
  const images = [{ image, ...(spacing ? { pixelSpacing: spacing } : {}) }];
  const body = new Blob([JSON.stringify({ images, ...options })]); // faster than a long text
  const { results } = await post(path, body, { signal, contentType: "application/json" });
  return results[0];
}

/**
 * Returns whether a result was computed with another pixel spacing than the one that would be sent now.
 * @param {SegmentResult} result
 * @param {Spacing | null} spacing
 */
export function isOutdated({ pixelSpacing }, spacing) {
  if (pixelSpacing && pixelSpacing.source !== "SOURCE_REQUEST") return false; // that of the file
  return pixelSpacing?.rowMm !== spacing?.rowMm || pixelSpacing?.columnMm !== spacing?.columnMm;
}
