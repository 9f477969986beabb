// The files of a view, sent with a bounded number of requests in flight.

import { formatOf } from "./picker.js";
import { isBusy } from "./problems.js";

/**
 * @template R
 * @typedef {object} Entry  a file with its result
 * @property {File} file
 * @property {import("./picker.js").Format} format
 * @property {number} frame  the chosen one, from 0
 * @property {"waiting" | "running" | "done" | "failed" | "cancelled"} status
 * @property {R | null} result
 * @property {number} resultFrame  the frame of the result; differs from the chosen one while that is being computed
 * @property {Error | null} error
 */
/**
 * @template R
 * @typedef {ReturnType<typeof createWorklist<R>>} Worklist
 */
/**
 * @template R
 * @typedef {(entry: Entry<R>, frame: number, signal: AbortSignal) => Promise<R>} Send
 */

/** @param {Entry<any>} entry */
function isRetryable({ status, error }) {
  return status === "cancelled" || isBusy(error);
}

/**
 * Returns an empty list of files.
 * @template R
 * @param {Send<R>} send  requests the result of a frame
 * @param {number} inFlight  the maximum number of requests at a time
 */
export function createWorklist(send, inFlight) {
  /** @type {Entry<R>[]} */
  const entries = [];
  /** @type {(entry: Entry<R>) => void} */
  let onChange = () => {};
  let controller = new AbortController();
  let running = 0;

  /** @param {Entry<R>} entry */
  async function run(entry) {
    const { signal } = controller;
    running += 1;
    entry.status = "running";
    onChange(entry);
    try {
      await sendFrame(entry, signal);
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
   * Sends the chosen frame, and another one that was chosen in the meantime.
   * @param {Entry<R>} entry
   * @param {AbortSignal} signal
   */
  async function sendFrame(entry, signal) {
    let frame;
    do {
      ({ frame } = entry);
      entry.result = await send(entry, frame, signal);
      entry.resultFrame = frame;
    } while (frame !== entry.frame);
  }

  function start() {
    while (running < inFlight) {
      const next = entries.find(({ status }) => status === "waiting");
      if (!next) return;
      run(next);
    }
  }

  /** @param {(entry: Entry<R>) => boolean} chosen */
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
    /** @param {(entry: Entry<R>) => void} listener  called after each change of an entry; replaces the one before */
    listen(listener) {
      onChange = listener;
    },
    /**
     * Appends files and starts to send them; returns the first new entry.
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
    /** Returns the number of files that are being computed or wait for it. */
    pending() {
      return entries.filter(({ status }) => status === "waiting" || status === "running").length;
    },
    /** Returns the number of files that `retry` would send. */
    retryable() {
      return entries.filter(isRetryable).length;
    },
    /** Sends the files again that were cancelled, or that the server was too busy for. */
    retry() {
      again(isRetryable);
    },
    /** @param {Entry<R>} entry */
    retryOne(entry) {
      again((one) => one === entry);
    },
    /**
     * Chooses a frame of a file; while one is being computed, the last one chosen follows.
     * @param {Entry<R>} entry
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
 * @param {import("./picker.js").Format} format
 * @returns {Entry<any>}
 */
function newEntry(file, format) {
  return { file, format, frame: 0, status: "waiting", result: null, resultFrame: 0, error: null };
}
