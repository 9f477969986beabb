/** The view of a model that predicts the risk of patients. Patient data is sent to the server only and stored nowhere. */

import { modelPath, post } from "../../api.js";
import { commands } from "../../commands.js";
import { element, replace } from "../../dom.js";
import { t } from "../../language.js";
import { errorBox } from "../errors.js";
import { addStyle } from "../style.js";
import { clientCode } from "./commands.js";
import { toPatient } from "./features.js";
import { patientForm } from "./form.js";
import { manySection } from "./many.js";
import { pasteSection } from "./paste.js";
import { resultSections, summary } from "./result.js";
import { whatIf } from "./what_if.js";

/** @typedef {import("./features.js").RiskTask} RiskTask */
/** @typedef {import("./features.js").Values} Values */
/** @typedef {{model: import("../../app.js").Model, manifest: {patientRisk: RiskTask}, signal: AbortSignal}} Shown */

// The server computes Shapley values of models with up to this number of features.
const MAX_SHAPLEY_FEATURES = 12;

/**
 * What was typed in, for the same page after a change of language or token.
 * @type {{address: string, raw: string[], horizon: string, hasResult: boolean} | null}
 */
let draft = null;
window.addEventListener("hashchange", () => {
  draft = null;
});

/**
 * Shows the form, the result, what-if sliders, and the table of many patients.
 *
 * @param {HTMLElement} root
 * @param {Shown} shown
 */
export async function show(root, { model, manifest, signal }) {
  const task = manifest.patientRisk;
  await addStyle(root, new URL("./style.css", import.meta.url));
  if (signal.aborted) {
    return;
  }
  let sending = new AbortController();
  let hasResult = false;
  let hasChanged = false; // since the last request
  const horizon = horizonList(task, () => hasResult && void predict());
  const { element: pasteArea, paste } = pasteSection(task.features, model.name, (values) => form.fill(values));
  const form = patientForm(task.features, [actions(horizon, clear)], {
    submit: () => void predict(),
    change: markStale,
    paste,
  });
  const status = element("p", { class: "visually-hidden", role: "status" });
  const result = element("div", { class: "patient-result" });
  const more = element("div", {});
  const staleNotes = [staleNote(), staleNote()];
  const heading = element("h2", { id: "patient-result", tabindex: "-1" }, t("patient.result_title"));

  function markStale() {
    hasChanged = true;
    showStale();
  }

  function showStale() {
    staleNotes.forEach((note) => (note.hidden = !(hasResult && hasChanged)));
  }

  function clear() {
    sending.abort();
    hasResult = false;
    form.fill(new Map());
    replace(result, element("p", { class: "muted" }, t("patient.result_none")));
    result.removeAttribute("aria-busy");
    replace(more);
    status.textContent = "";
  }

  async function predict() {
    const values = form.read();
    if (!values) {
      return; // the first wrong value has the focus
    }
    sending.abort();
    sending = new AbortController();
    hasChanged = false;
    const reasons = { horizon: horizon.value, ...(hasShapley(task) ? { shapley: true } : {}) };
    const body = { patients: [toPatient(values)], reasons };
    const path = modelPath(model, "predictRisk");
    result.setAttribute("aria-busy", "true");
    try {
      const response = await post(path, body, { signal: AbortSignal.any([sending.signal, signal]) });
      const [found] = response.results;
      const client = clientCode(model, values, reasons);
      replace(result, ...resultSections(task, values, found), commands({ method: "POST", path, body, client }));
      replace(more, whatIf({ model, task, values, result: found, horizon: horizon.value, signal }));
      status.textContent = summary(task, found);
      hasResult = true;
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") {
        return; // replaced by a later request, or the view has ended
      }
      replace(result, errorBox(error, () => void predict()));
      replace(more);
      status.textContent = "";
      hasResult = false;
    }
    showStale();
    result.removeAttribute("aria-busy");
    scrollTo(heading);
  }

  root.append(
    element(
      "div",
      { class: "patient-columns" },
      element(
        "section",
        { class: "card no-print", "aria-labelledby": "patient-form" },
        element("h2", { id: "patient-form" }, t("patient.form_title")),
        pasteArea,
        form.element,
      ),
      element("section", { class: "card", "aria-labelledby": "patient-result" }, heading, status, staleNotes[0], result),
    ),
    staleNotes[1],
    more,
    manySection(model, task, signal),
  );
  clear();
  signal.addEventListener("abort", () => {
    draft = { address: location.hash, raw: form.raw(), horizon: horizon.value, hasResult };
  });
  if (draft?.address === location.hash) {
    form.restore(draft.raw);
    horizon.value = draft.horizon;
    if (draft.hasResult) {
      await predict();
    }
  }
  draft = null;
}

/** Returns the note that a result belongs to earlier values, hidden. */
function staleNote() {
  return element("p", { class: "warning", hidden: true }, t("patient.result_stale"));
}

/**
 * Scrolls to an element that is not in sight, as the result below the form on a phone.
 *
 * @param {HTMLElement} target
 */
function scrollTo(target) {
  const { top } = target.getBoundingClientRect();
  if (top < 0 || top > 0.8 * window.innerHeight) {
    target.scrollIntoView();
  }
}

/** @param {RiskTask} task */
function hasShapley({ background, features }) {
  return background.length > 0 && features.length <= MAX_SHAPLEY_FEATURES;
}

/**
 * @param {RiskTask} task
 * @param {() => void} change
 */
function horizonList({ horizons, referenceHorizon }, change) {
  const options = horizons.map(({ label }) => element("option", { value: label, selected: label === referenceHorizon }, label));
  return element("select", { id: "patient-horizon", on: { change } }, ...options);
}

/**
 * @param {HTMLSelectElement} horizon
 * @param {() => void} clear
 */
function actions(horizon, clear) {
  return element(
    "div",
    { class: "patient-actions" },
    element("div", { class: "field" }, element("label", { for: "patient-horizon" }, t("patient.form_horizon")), horizon),
    element("button", { type: "submit", class: "primary" }, t("patient.form_predict")),
    element("button", { type: "button", on: { click: clear } }, t("patient.form_clear")),
  );
}
