/**
 * What the risk would be with other values. The server computes the risk for every position of a slider when it is
 * first touched; while it moves, these numbers are shown, and none is interpolated. On release, the whole result for
 * the changed patient is requested.
 */

import { modelPath, post } from "../../api.js";
import { commands } from "../../commands.js";
import { element, replace } from "../../dom.js";
import { percent, t } from "../../language.js";
import { errorBox } from "../errors.js";
import { clientCode } from "./commands.js";
import { comparison } from "./comparison.js";
import { curveChart, curveOf, riskAt } from "./curve.js";
import { toPatient } from "./features.js";
import { points } from "./shapley.js";
import { createSlider } from "./sliders.js";

/** @typedef {import("./features.js").RiskTask} RiskTask */
/** @typedef {import("./features.js").Values} Values */
/** @typedef {import("./result.js").PatientResult} PatientResult */
/** @typedef {import("./sliders.js").Slider} Slider */
/** @typedef {import("./curve.js").Curve} Curve */
/**
 * @typedef {object} Patient
 * @property {import("../../app.js").Model} model
 * @property {RiskTask} task
 * @property {Values} values as entered
 * @property {PatientResult} result of these values
 * @property {string} horizon
 * @property {AbortSignal} signal ends the requests
 */

/**
 * Returns the sliders, the curve of the one in use, and the comparison with the patient as entered.
 *
 * @param {Patient} patient
 */
export function whatIf(patient) {
  const { model, task, horizon, signal } = patient;
  const entered = patient.result.risks.find((risk) => risk.horizon === horizon)?.risk ?? NaN;
  /** @type {Values} */
  let current = new Map(patient.values);
  /** @type {number | null} */
  let known = entered; // the risk with the current values; null while it is computed
  /** @type {Map<string, Curve>} */
  const curves = new Map();
  let loading = { name: "", controller: new AbortController() };
  let comparing = new AbortController();

  const readout = element("p", { class: "patient-readout" });
  const chart = element("div", {});
  const outcome = element("div", { "aria-live": "polite" });
  const failed = element("div", {});
  const sliders = task.features.flatMap((feature) => {
    const slider = createSlider(feature, patient.values.get(feature.name) ?? null);
    return slider ? [slider] : [];
  });

  /** @param {Slider} slider */
  async function load({ feature, scale }) {
    const { name } = feature;
    if (curves.has(name) || loading.name === name) {
      return;
    }
    loading.controller.abort();
    const own = { name, controller: new AbortController() };
    loading = own;
    const reasons = { horizon, whatIf: { feature: name, ...(scale && request(scale)) } };
    try {
      const body = { patients: [toPatient(current)], reasons };
      const { results } = await post(modelPath(model, "predictRisk"), body, { signal: both(own.controller.signal, signal) });
      curves.set(name, curveOf(results[0]));
    } finally {
      if (loading === own) {
        loading = { name: "", controller: new AbortController() };
      }
    }
  }

  /** @param {Slider} slider */
  function draw(slider) {
    const curve = curves.get(slider.feature.name);
    if (!curve) {
      return;
    }
    const value = current.get(slider.feature.name) ?? slider.start;
    const risk = riskAt(curve, value) ?? known;
    if (risk !== null) {
      show(risk);
    }
    replace(chart, curveChart(slider.feature, curve, value, horizon, entered));
  }

  /** @param {number} risk */
  function show(risk) {
    known = risk;
    replace(
      readout,
      t("patient.what_if_readout", { horizon }),
      element("data", { value: risk }, percent(risk)),
      t("patient.what_if_change", { points: points(risk - entered), risk: percent(entered) }),
    );
  }

  /** @param {Slider} slider */
  async function move(slider) {
    const { name } = slider.feature;
    current.set(name, slider.value());
    known = null;
    comparing.abort(); // with the value before
    if (loading.name !== name) {
      loading.controller.abort(); // of a curve with the value before
    }
    for (const other of curves.keys()) {
      if (other !== name) {
        curves.delete(other);
      }
    }
    await touch(slider);
  }

  /** @param {Slider} slider */
  async function touch(slider) {
    await attempt(async () => {
      if (known === null && !curves.has(slider.feature.name)) {
        replace(readout, t("patient.what_if_computing"));
      }
      await load(slider);
      draw(slider);
    }, () => touch(slider));
  }

  /** @param {Slider} slider */
  async function compare(slider) {
    comparing.abort();
    comparing = new AbortController();
    const own = comparing;
    outcome.setAttribute("aria-busy", "true");
    const isDone = await attempt(async () => {
      const values = new Map(current);
      const body = { patients: [toPatient(values)] };
      const { results } = await post(modelPath(model, "predictRisk"), body, { signal: both(own.signal, signal) });
      show(results[0].risks.find((/** @type {{horizon: string}} */ risk) => risk.horizon === horizon).risk);
      replace(outcome, ...comparison(patient, values, results[0]), curveCommands(slider, values));
    }, () => compare(slider));
    if (own.signal.aborted) {
      return; // by a later comparison, which will follow or has begun
    }
    if (!isDone) {
      replace(outcome); // of other values
    }
    outcome.removeAttribute("aria-busy");
  }

  /**
   * Runs a request and shows its failure with a button that tries again; a canceled one is not a failure.
   *
   * @param {() => Promise<void>} run
   * @param {() => Promise<void>} again
   * @returns {Promise<boolean>} whether the request was completed
   */
  async function attempt(run, again) {
    try {
      await run();
      replace(failed);
      return true;
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) {
        replace(failed, errorBox(error, () => void again()));
        if (known === null) {
          replace(readout);
        }
      }
      return false;
    }
  }

  /**
   * @param {Slider} slider
   * @param {Values} values
   */
  function curveCommands({ feature, scale }, values) {
    const reasons = { horizon, whatIf: { feature: feature.name, ...(scale && request(scale)) } };
    const body = { patients: [toPatient(values)], reasons };
    return commands({ method: "POST", path: modelPath(model, "predictRisk"), body, client: clientCode(model, values, reasons) });
  }

  function reset() {
    loading.controller.abort();
    comparing.abort();
    current = new Map(patient.values);
    known = entered;
    curves.clear();
    sliders.forEach((slider) => slider.reset());
    replace(readout, t("patient.what_if_start"));
    replace(chart);
    replace(outcome);
    outcome.removeAttribute("aria-busy");
    replace(failed);
  }

  for (const slider of sliders) {
    for (const event of ["pointerdown", "focusin"]) {
      slider.element.addEventListener(event, () => void touch(slider));
    }
    slider.element.addEventListener("input", () => void move(slider));
    slider.element.addEventListener("change", () => void compare(slider));
  }
  reset();
  return element(
    "section",
    { class: "card patient-what-if no-print", "aria-labelledby": "patient-what-if" },
    element("h2", { id: "patient-what-if" }, t("patient.what_if_title")),
    element("p", { class: "patient-hint" }, t("patient.what_if_note")),
    readout,
    element(
      "div",
      { class: "patient-columns" },
      element(
        "div",
        {},
        ...sliders.map((slider) => slider.element),
        element("button", { type: "button", on: { click: reset } }, t("patient.what_if_reset")),
      ),
      element("div", {}, failed, chart, outcome),
    ),
  );
}

/** @param {import("./scale.js").Scale} scale */
function request({ low, high, values }) {
  return { low, high, points: values.length };
}

/**
 * @param {AbortSignal} one
 * @param {AbortSignal} other
 */
function both(one, other) {
  return AbortSignal.any([one, other]);
}
