// The view of models that segment images.

import { element } from "../../dom.js";
import { batchBar } from "../files/batch.js";
import { filePicker } from "../files/picker.js";
import { fileRows, fileTable } from "../files/table.js";
import { createWorklist } from "../files/worklist.js";
import { addStyle } from "../style.js";
import { resultNames, resultValues } from "./csv.js";
import { segmentDetail } from "./detail.js";
import { isOutdated, segment } from "./requests.js";
import { spacingFields } from "./spacing.js";
import { tableColumns } from "./table.js";

/** @typedef {import("./requests.js").SegmentResult} SegmentResult */
/** @typedef {import("./requests.js").Spacing} Spacing */
/** @typedef {import("./requests.js").Entry} Entry */
/**
 * @typedef {object} State
 * @property {string} key  of the model
 * @property {import("../files/worklist.js").Worklist<SegmentResult>} worklist
 * @property {Entry | null} selected
 * @property {Spacing | null} spacing
 */

const IN_FLIGHT = 2; // results of large images are large

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
  /** @type {import("./requests.js").Task} */
  const task = manifest.imageSegmentation;
  const state = stateOf(model, task);
  const { worklist } = state;
  const { entries } = worklist;
  const detail = segmentDetail({ model, task, worklist });
  const table = fileTable(entries, tableColumns(task), select);
  const csvRows = () => fileRows(entries, resultNames(task), (result) => resultValues(result, task));
  const batch = batchBar(worklist, "medserve-segmentation.csv", csvRows, clear);
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

  /** @param {Entry} entry */
  function repeatIfOutdated(entry) {
    if (entry.status === "done" && entry.result && isOutdated(entry.result, state.spacing)) worklist.retryOne(entry);
  }

  /** @param {Spacing | null} spacing */
  function setSpacing(spacing) {
    state.spacing = spacing;
    [...entries].forEach(repeatIfOutdated);
  }

  worklist.listen((entry) => {
    table.update(entry);
    if (worklist.pending() === 0) table.refresh(); // rows move once, when all results are there
    batch.update();
    if (entry === state.selected) detail.update();
    repeatIfOutdated(entry); // the spacing was changed while it was computed
  });
  signal.addEventListener("abort", () => worklist.listen(() => {}));
  const picker = filePicker(add, signal);
  const view = element("div", { class: "files-view" }, picker, spacingFields(state.spacing, setSpacing), list, detail.node);
  root.append(view);
  showList();
  select(state.selected);
}

/**
 * Returns the state of the model, if it was shown last, or a new one.
 * @param {import("../../app.js").Model} model
 * @param {import("./requests.js").Task} task
 * @returns {State}
 */
function stateOf(model, task) {
  const key = JSON.stringify([model.name, model.version]);
  if (kept?.key === key) return kept;
  kept?.worklist.clear();
  /** @type {import("../files/worklist.js").Send<SegmentResult>} */
  const send = (entry, frame, ending) => segment(model, task, entry, frame, state.spacing, ending);
  /** @type {State} */
  const state = { key, worklist: createWorklist(send, IN_FLIGHT), selected: null, spacing: null };
  kept = state;
  return state;
}
