// One file: its picture with layers, what was found, and the objects.

import { download, formatCsv } from "../../csv.js";
import { element, replace } from "../../dom.js";
import { number, t } from "../../language.js";
import { frameSlider } from "../files/frames.js";
import { problem } from "../files/problems.js";
import { columnsOf, unitsOf } from "./columns.js";
import { segmentCommands } from "./commands.js";
import { objectRows } from "./csv.js";
import { itemsOf } from "./items.js";
import { labelChoice, layerSliders } from "./layers.js";
import { objectTable } from "./objects.js";
import { picture } from "./picture.js";
import { selectedObject } from "./selected.js";
import { figures, otherWarnings, provenance, unfamiliar } from "./summary.js";

/** @typedef {import("./requests.js").Entry} Entry */
/** @typedef {import("./requests.js").SegmentResult} SegmentResult */
/**
 * @typedef {object} Context
 * @property {import("./requests.js").Model} model
 * @property {import("./requests.js").Task} task
 * @property {import("../files/worklist.js").Worklist<SegmentResult>} worklist
 */

/**
 * Returns the area of the selected file: `show` selects another, and `update` shows its changes.
 * @param {Context} context
 */
export function segmentDetail({ model, task, worklist }) {
  /** @type {Entry | null} */
  let entry = null;
  /** @type {SegmentResult | null} */
  let drawn = null;
  const title = element("h2", {});
  const status = element("p", { role: "status", class: "muted" });
  const problemBox = element("div", {});
  const frames = element("div", {});
  const body = element("div", { class: "segmentation-result" });
  const requests = element("div", {});
  const print = element("button", { type: "button", on: { click: () => window.print() } }, t("files.print"));
  const heading = element("div", { class: "files-heading" }, title, print);
  const node = element("section", { hidden: true }, heading, status, frames, problemBox, body, requests);

  /** @param {Entry | null} selected */
  function show(selected) {
    entry = selected;
    drawn = null;
    node.hidden = entry === null;
    replace(title, entry?.file.name ?? "");
    replace(frames);
    replace(body);
    update();
  }

  function update() {
    if (!entry) return;
    const shown = entry;
    const { status: state, error, result } = shown;
    const complete = state === "done" || (state === "running" && result !== null);
    replace(status, state === "done" || error ? "" : t(`files.status_${state}`));
    replace(problemBox, problem(shown, () => worklist.retryOne(shown)));
    body.hidden = requests.hidden = print.hidden = !complete;
    body.setAttribute("aria-busy", String(state === "running"));
    if (result && result !== drawn) draw(shown, result);
  }

  /**
   * @param {Entry} shown
   * @param {SegmentResult} result
   */
  function draw(shown, result) {
    drawn = result;
    if (!frames.hasChildNodes()) replace(frames, frameSlider(shown, (frame) => worklist.setFrame(shown, frame)));
    replace(body, ...resultOf(shown, result, task));
    const before = requests.querySelector("details");
    const after = segmentCommands(model, shown);
    after.open = before?.open ?? false;
    replace(requests, after);
  }

  return { node, show, update };
}

/**
 * Returns the picture and what was found, which point to the same selected object.
 * @param {Entry} entry
 * @param {SegmentResult} result
 * @param {import("./requests.js").Task} task
 */
function resultOf(entry, result, task) {
  const items = itemsOf(result);
  const labels = result.labels.map(({ label }) => label);
  const units = unitsOf(result);
  const columns = columnsOf(items, units, labels.length > 1);
  const shown = picture(entry, result, items, select);
  const table = objectTable(columns, select);
  const selected = selectedObject(shown, columns);
  const stem = entry.file.name.replace(/\.\w+$/, "");

  /** @param {import("./items.js").Item | null} item */
  function select(item) {
    shown.mark(item);
    table.select(item);
    selected.show(item);
  }

  /** @param {string[]} chosen */
  function choose(chosen) {
    select(null);
    table.show(items.filter(({ label }) => chosen.includes(label)));
    void shown.draw(chosen);
  }

  async function savePicture() {
    const blob = await shown.toBlob();
    if (blob) download(`${stem}-segmentation.png`, blob);
  }

  function saveObjects() {
    download(`${stem}-objects.csv`, formatCsv(objectRows(entry, items, result.pixelSpacing ? "mm" : "px")));
  }

  choose(labels);
  return [
    pictureCard(shown, labelChoice(labels, choose), result.uncertaintyPng !== "", savePicture),
    element(
      "div",
      { class: "segmentation-findings" },
      findingsCard(result, task),
      selected.node,
      items.length ? objectsCard(table.node, items.length, units, saveObjects) : null,
    ),
  ];
}

/**
 * @param {import("./picture.js").Picture} shown
 * @param {HTMLElement | null} labels
 * @param {boolean} hasUncertainty
 * @param {() => void} save
 */
function pictureCard(shown, labels, hasUncertainty, save) {
  const note = element("p", { class: "muted" });
  void shown.displayed.then((displayed) => replace(note, displayed ? null : t("segmentation.not_displayable")));
  return element(
    "div",
    { class: "card segmentation-pictures" },
    shown.node,
    note,
    labels,
    layerSliders(shown, hasUncertainty),
    element(
      "p",
      { class: "row no-print" },
      element("button", { type: "button", on: { click: save } }, t("segmentation.save_picture")),
    ),
  );
}

/**
 * @param {SegmentResult} result
 * @param {import("./requests.js").Task} task
 */
function findingsCard(result, task) {
  const found = [...figures(result, task), ...provenance(result, task)];
  return element("div", { class: "card" }, unfamiliar(result), ...found, otherWarnings(result));
}

/**
 * @param {HTMLElement} table
 * @param {number} count
 * @param {import("./columns.js").Units} units
 * @param {() => void} save
 */
function objectsCard(table, count, units, save) {
  return element(
    "section",
    { class: "card" },
    element(
      "div",
      { class: "files-heading" },
      element("h3", {}, t("segmentation.objects_count", { count: number(count) })),
      element("p", { class: "muted" }, units.length === "px" ? t("segmentation.sizes_px") : t("segmentation.sizes", { ...units })),
      element("button", { type: "button", on: { click: save } }, t("segmentation.save_objects")),
    ),
    table,
  );
}
