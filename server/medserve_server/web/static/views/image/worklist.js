// The files of the view, classified with a bounded number of requests in flight.

import { formatOf } from "./files.js";
import { classify } from "./requests.js";

/** @typedef {import("./requests.js").Model} Model */
/** @typedef {import("./requests.js").ImageResult} ImageResult */
/** @typedef {import("./requests.js").ReasonMap} ReasonMap */
/**
 * @typedef {object} Entry  a file with its result
 * @property {File} file
 * @property {import("./files.js").Format} format
 * @property {number} frame  the chosen one, from 0
 * @property {"waiting" | "running" | "done" | "failed" | "cancelled"} status
 * @property {ImageResult | null} result
 * @property {number} resultFrame  the frame of the result; differs from the chosen one while that is being classified
 * @property {Error | null} error
 * @property {Map<string, unknown>} explanations  of the result, by what was requested
 */
/** @typedef {ReturnType<typeof createWorklist>} Worklist */

export const IN_FLIGHT = 4;
const BUSY = ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"];

/**
 * Returns whether an error may pass if the same request is sent again.
 * @param {Error | null} error
 */
export function isBusy(error) {
  return error !== null && "code" in error && BUSY.includes(/** @type {string} */ (error.code));
}

/** @param {Entry} entry */
function isRetryable({ status, error }) {
  return status === "cancelled" || isBusy(error);
}

/**
 * Returns an empty list of files for a model.
 * @param {Model} model
 */
export function createWorklist(model) {
  /** @type {Entry[]} */
  const entries = [];
  /** @type {(entry: Entry) => void} */
  let onChange = () => {};
  let controller = new AbortController();
  let running = 0;

  /** @param {Entry} entry */
  async function run(entry) {
    const { signal } = controller;
    running += 1;
    entry.status = "running";
    onChange(entry);
    try {
      await classifyFrame(entry, signal);
      entry.status = "done";
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      entry.result = null;
      entry.error = signal.aborted ? null : error;
      entry.status = signal.aborted ? "cancelled" : "failed";
    } finally {
      running -= 1;
    }
    if (entries.includes(entry)) onChange(entry); // it may have been removed
    start();
  }

  /**
   * Classifies the chosen frame, and another one that was chosen in the meantime.
   * @param {Entry} entry
   * @param {AbortSignal} signal
   */
  async function classifyFrame(entry, signal) {
    let frame;
    do {
      ({ frame } = entry);
      entry.result = await classify(model, entry, frame, null, signal);
      entry.resultFrame = frame;
      entry.explanations = new Map();
    } while (frame !== entry.frame);
  }

  function start() {
    while (running < IN_FLIGHT) {
      const next = entries.find(({ status }) => status === "waiting");
      if (!next) return;
      run(next);
    }
  }

  /** @param {(entry: Entry) => boolean} chosen */
  function again(chosen) {
    for (const entry of entries.filter(chosen)) {
      entry.status = "waiting";
      entry.error = null;
      onChange(entry);
    }
    start();
  }

  /** Cancels the requests in flight and those that wait. */
  function cancel() {
    for (const entry of entries.filter(({ status }) => status === "waiting")) {
      entry.status = "cancelled";
      onChange(entry);
    }
    controller.abort();
    controller = new AbortController();
  }

  return {
    entries,
    /** @param {(entry: Entry) => void} listener  called after each change of an entry; replaces the one before */
    listen(listener) {
      onChange = listener;
    },
    /**
     * Appends files and starts to classify them; returns the first new entry.
     * @param {File[]} files
     */
    async add(files) {
      const formats = await Promise.all(files.map(formatOf));
      const added = files.map((file, index) => newEntry(file, formats[index]));
      entries.push(...added);
      added.forEach((entry) => onChange(entry));
      start();
      return added[0];
    },
    cancel,
    /** Returns the number of files that are being classified or wait for it. */
    pending() {
      return entries.filter(({ status }) => status === "waiting" || status === "running").length;
    },
    /** Returns the number of files that `retry` would classify. */
    retryable() {
      return entries.filter(isRetryable).length;
    },
    /** Classifies the files again that were cancelled, or that the server was too busy for. */
    retry() {
      again(isRetryable);
    },
    /** @param {Entry} entry */
    retryOne(entry) {
      again((one) => one === entry);
    },
    /**
     * Chooses a frame of a file; while one is being classified, the last one chosen follows.
     * @param {Entry} entry
     * @param {number} frame
     */
    setFrame(entry, frame) {
      entry.frame = frame;
      if (entry.status !== "running") again((one) => one === entry);
    },
    /** Removes all files. */
    clear() {
      cancel();
      entries.length = 0;
    },
  };
}

/**
 * @param {File} file
 * @param {import("./files.js").Format} format
 * @returns {Entry}
 */
function newEntry(file, format) {
  const none = { result: null, resultFrame: 0, error: null, explanations: new Map() };
  return { file, format, frame: 0, status: "waiting", ...none };
}
