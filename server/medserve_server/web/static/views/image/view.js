// The view of models that classify images.

import { element } from "../../dom.js";
import { batchBar } from "../files/batch.js";
import { filePicker } from "../files/picker.js";
import { fileRows, fileTable } from "../files/table.js";
import { createWorklist } from "../files/worklist.js";
import { addStyle } from "../style.js";
import { defaultPoint } from "./decision.js";
import { imageDetail } from "./detail.js";
import { operatingPoint } from "./point.js";
import { classify } from "./requests.js";
import { csvNames, csvValues, tableColumns } from "./table.js";

/** @typedef {import("./requests.js").ImageResult} ImageResult */
/** @typedef {import("../files/worklist.js").Entry<ImageResult>} Entry */
/** @typedef {import("../files/worklist.js").Worklist<ImageResult>} Worklist */
/** @typedef {import("./decision.js").Point} Point */
/** @typedef {import("./decision.js").Task} Task */
/**
 * @typedef {object} State
 * @property {string} key  of the model
 * @property {Worklist} worklist
 * @property {Entry | null} selected
 * @property {Point | null} point
 */

const IN_FLIGHT = 4;

/**
 * The state of the model that was shown last, which outlives the view: the files stay when the language changes.
 * @type {State | null}
 */
let kept = null;

/**
 * Shows the view.
 * @param {HTMLElement} root
 * @param {import("../../app.js").Shown} shown
 */
export async function show(root, { model, manifest, signal }) {
  await addStyle(root, new URL("../files/style.css", import.meta.url));
  await addStyle(root, new URL("./style.css", import.meta.url));
  if (signal.aborted) return;
  /** @type {Task | null} */
  const task = manifest?.imageClassification ?? null;
  const state = stateOf(model, task);
  const { worklist } = state;
  const { entries } = worklist;

  const point = operatingPoint(task, state.point, (chosen) => {
    state.point = chosen;
    table.refresh();
    detail.decide();
  });
  const detail = imageDetail({ model, task, worklist, signal }, () => state.point, point);
  const table = fileTable(entries, tableColumns(() => state.point), select);
  const batch = batchBar(worklist, "medserve-images.csv", csvRows, clear);
  const list = element("section", { class: "card no-print" }, batch.node, table.node);

  /** @param {Entry | null} entry */
  function select(entry) {
    state.selected = entry;
    table.select(entry);
    detail.show(entry);
  }

  function csvRows() {
    const labels = task?.labels ?? [];
    return fileRows(entries, csvNames(labels), (result) => csvValues(result, labels, state.point));
  }

  function showList() {
    view.classList.toggle("filled", entries.length > 0);
    list.hidden = entries.length < 2;
    table.refresh();
    batch.update();
  }

  /** @param {File[]} files */
  async function add(files) {
    const first = await worklist.add(files);
    showList();
    select(first);
  }

  function clear() {
    worklist.clear();
    showList();
    select(null);
  }

  worklist.listen((entry) => {
    table.update(entry);
    if (worklist.pending() === 0) table.refresh(); // rows move once, when all results are there
    batch.update();
    if (entry === state.selected) detail.update();
  });
  signal.addEventListener("abort", () => worklist.listen(() => {}));
  const view = element("div", { class: "files-view" }, filePicker(add, signal), list, detail.node);
  root.append(view);
  showList();
  select(state.selected);
}

/**
 * Returns the state of the model, if it was shown last, or a new one.
 * @param {import("../../app.js").Model} model
 * @param {Task | null} task
 * @returns {State}
 */
function stateOf(model, task) {
  const key = JSON.stringify([model.name, model.version]);
  if (kept?.key !== key) {
    kept?.worklist.clear();
    /** @type {import("../files/worklist.js").Send<ImageResult>} */
    const send = (entry, frame, ending) => classify(model, entry, frame, null, ending);
    kept = { key, worklist: createWorklist(send, IN_FLIGHT), selected: null, point: defaultPoint(task) };
  }
  return kept;
}
