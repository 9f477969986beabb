// The view of models that classify images.

import { element } from "../../dom.js";
import { addStyle } from "../style.js";
import { batchBar } from "./batch.js";
import { defaultPoint } from "./decision.js";
import { imageDetail } from "./detail.js";
import { filePicker } from "./files.js";
import { operatingPoint } from "./point.js";
import { csvRows, fileTable } from "./table.js";
import { createWorklist } from "./worklist.js";

/** @typedef {import("./worklist.js").Entry} Entry */
/** @typedef {import("./decision.js").Point} Point */
/** @typedef {import("./decision.js").Task} Task */
/**
 * @typedef {object} State
 * @property {string} key  of the model
 * @property {import("./worklist.js").Worklist} worklist
 * @property {Entry | null} selected
 * @property {Point | null} point
 */

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
  const table = fileTable(entries, () => state.point, select);
  const batch = batchBar(worklist, () => csvRows(entries, task?.labels ?? [], state.point), clear);
  const list = element("section", { class: "card no-print" }, batch.node, table.node);

  /** @param {Entry | null} entry */
  function select(entry) {
    state.selected = entry;
    table.select(entry);
    detail.show(entry);
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
  const view = element("div", { class: "image-view" }, filePicker(add, signal), list, detail.node);
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
    kept = { key, worklist: createWorklist(model), selected: null, point: defaultPoint(task) };
  }
  return kept;
}
