// One file: its pictures, its result, and the explanations that are asked for.

import { element, replace } from "../../dom.js";
import { t } from "../../language.js";
import { frameSlider } from "../files/frames.js";
import { problem } from "../files/problems.js";
import { furtherValues, warnings } from "../files/warnings.js";
import { imageCommands } from "./commands.js";
import { decide } from "./decision.js";
import { explanations } from "./explanations.js";
import { featureMaps } from "./features.js";
import { pictures } from "./pictures.js";
import { decision, probabilities } from "./result.js";

/** @typedef {import("./view.js").Entry} Entry */
/** @typedef {import("./requests.js").Reasons} Reasons */
/**
 * @typedef {object} Context
 * @property {import("./requests.js").Model} model
 * @property {import("./decision.js").Task | null} task
 * @property {import("./view.js").Worklist} worklist
 * @property {AbortSignal} signal  ends with the view
 */

/**
 * Returns the area of the selected file: `show` selects another, `update` shows its changes, and `decide` another
 * operating point.
 * @param {Context} context
 * @param {() => import("./decision.js").Point | null} currentPoint
 * @param {HTMLElement} pointSection
 */
export function imageDetail({ model, task, worklist, signal }, currentPoint, pointSection) {
  /** @type {Entry | null} */
  let entry = null;
  /** @type {import("./requests.js").ImageResult | null} */
  let drawn = null;
  const title = element("h2", {});
  const status = element("p", { role: "status", class: "muted" });
  const problemBox = element("div", {});
  const frames = element("div", {});
  const pictureBox = element("div", {});
  const explained = element("div", {});
  const verdict = element("div", { "aria-live": "polite" });
  const numbers = element("div", {});
  const further = element("div", {});
  const requests = element("div", {});
  const body = element(
    "div",
    { class: "files-result" },
    element("div", { class: "card" }, pictureBox, explained),
    element("div", { class: "card" }, verdict, numbers, pointSection, further),
  );
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
    update();
  }

  function update() {
    if (!entry) return;
    const { status: state, error, result } = entry;
    const shown = entry;
    const complete = state === "done" || (state === "running" && result !== null);
    replace(status, state === "done" || error ? "" : t(`files.status_${state}`));
    replace(problemBox, problem(shown, () => worklist.retryOne(shown)));
    body.hidden = requests.hidden = print.hidden = !complete;
    body.setAttribute("aria-busy", String(state === "running"));
    if (result && result !== drawn) draw(entry, result);
  }

  /**
   * @param {Entry} shown
   * @param {import("./requests.js").ImageResult} result
   */
  function draw(shown, result) {
    drawn = result;
    const { node: pair, layer } = pictures(shown, task);
    const request = { model, entry: shown, task, signal };
    if (!frames.hasChildNodes()) replace(frames, frameSlider(shown, (frame) => worklist.setFrame(shown, frame)));
    replace(pictureBox, pair);
    showDecision();
    replace(numbers, probabilities(result), warnings(result));
    replace(further, furtherValues(result, task));
    const decided = decide(result.labels, currentPoint()).label;
    replace(explained, explanations(request, layer, decided, showCommands), featureMaps(request, showCommands));
    showCommands(null);
  }

  function showDecision() {
    if (entry?.result) replace(verdict, decision(entry.result, currentPoint()));
  }

  /** @param {Reasons | null} reasons */
  function showCommands(reasons) {
    if (!entry) return;
    const before = requests.querySelector("details");
    const after = imageCommands(model, entry, reasons);
    after.open = before?.open ?? false;
    replace(requests, after);
  }

  return { node, show, update, decide: showDecision };
}
