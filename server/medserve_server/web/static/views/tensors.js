/** The view of a model without a task: its tensors, and an example request over the Open Inference Protocol. */

import { get, post } from "../api.js";
import { commands } from "../commands.js";
import { download } from "../csv.js";
import { element, replace } from "../dom.js";
import { number, t } from "../language.js";
import { definitions, table } from "./card.js";
import { errorBox } from "./errors.js";

/**
 * @typedef {{name: string, datatype: string, shape: number[]}} Tensor
 * @typedef {Tensor & {data?: any[]}} Filled
 */

/** Numbers of values up to which the example can be edited, and up to which there is one. */
const MAX_EDITED = 2048;
const MAX_VALUES = 500_000;
const SHOWN_VALUES = 100;
/** Datatypes that JSON cannot contain; they are sent as binary data. */
const BINARY = ["FP16", "BF16"];

/**
 * Shows the tensors of a model.
 *
 * @param {HTMLElement} root
 * @param {import("../app.js").Shown} shown
 */
export async function show(root, { model, signal }) {
  const path = `/v2/models/${encodeURIComponent(model.name)}/versions/${encodeURIComponent(model.version)}`;
  const { inputs, outputs, platform, versions } = await get(path, signal);
  root.append(
    element("p", {}, t("tensors.intro")),
    element(
      "div",
      { class: "columns" },
      element("section", { class: "card" }, element("h2", {}, t("tensors.inputs")), tensorTable(t("tensors.inputs"), inputs)),
      element("section", { class: "card" }, element("h2", {}, t("tensors.outputs")), tensorTable(t("tensors.outputs"), outputs)),
    ),
    element(
      "section",
      { class: "card metadata" },
      element("h2", {}, t("tensors.metadata")),
      definitions([
        [t("tensors.platform"), platform],
        [t("tensors.versions"), versions.join(", ")],
        [t("tensors.provider"), model.provider],
      ]),
    ),
    element("section", { class: "card" }, element("h2", {}, t("tensors.example")), ...example(`${path}/infer`, inputs, outputs, signal)),
  );
}

/**
 * @param {string} caption
 * @param {Tensor[]} tensors
 */
function tensorTable(caption, tensors) {
  if (!tensors.length) return element("p", { class: "muted" }, t("tensors.none"));
  const rows = tensors.map(({ name, datatype, shape }) => [element("code", {}, name), datatype, shapeText(shape)]);
  return table(caption, [t("tensors.name"), t("tensors.datatype"), t("tensors.shape")], rows);
}

/** @param {number[]} shape */
function shapeText(shape) {
  return `[${shape.map((size) => (size < 0 ? t("tensors.any_size") : String(size))).join(", ")}]`;
}

/**
 * Returns the example request: every axis of variable size has size 1, and every value is zero.
 *
 * @param {string} path
 * @param {Tensor[]} inputs
 * @param {Tensor[]} outputs
 * @param {AbortSignal} signal
 */
function example(path, inputs, outputs, signal) {
  const shapes = inputs.map(({ shape }) => shape.map((size) => Math.max(1, size)));
  const counts = shapes.map((shape) => shape.reduce((product, size) => product * size, 1));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const binary = [...inputs, ...outputs].find(({ datatype }) => BINARY.includes(datatype));
  if (binary) return [element("p", {}, t("tensors.binary_only", { name: binary.name, datatype: binary.datatype }))];
  if (total > MAX_VALUES) return [element("p", {}, t("tensors.too_large", { count: number(total) }))];
  const filled = inputs.map(({ name, datatype }, index) => {
    const value = datatype === "BYTES" ? "" : datatype === "BOOL" ? false : 0;
    return { name, datatype, shape: shapes[index], data: Array(counts[index]).fill(value) };
  });
  return total <= MAX_EDITED ? editable(path, filled, signal) : fixed(path, filled, total, signal);
}

/**
 * @param {string} path
 * @param {Filled[]} inputs
 * @param {AbortSignal} signal
 */
function editable(path, inputs, signal) {
  const answer = answerRegion();
  const called = element("div", {}, commands({ method: "POST", path, body: { inputs } }));
  const wrong = element("p", { class: "invalid", role: "alert" });
  const text = element("textarea", { id: "request", rows: 12, spellcheck: "false", on: { input: changed } });
  text.value = requestText(inputs);

  function request() {
    try {
      wrong.textContent = "";
      return JSON.parse(text.value);
    } catch (error) {
      wrong.textContent = t("tensors.not_json", { reason: /** @type {Error} */ (error).message });
      return undefined;
    }
  }

  function changed() {
    const body = request();
    if (body !== undefined) replace(called, commands({ method: "POST", path, body }));
  }

  const send = sendButton(async () => {
    const body = request();
    if (body !== undefined) await ask(path, body, answer, signal);
  });
  return [
    element("label", { for: "request" }, t("tensors.request")),
    element("p", { class: "muted" }, t("tensors.zeros")),
    text,
    wrong,
    element("p", { class: "row" }, send),
    answer,
    called,
  ];
}

/**
 * The same for a request that is too large to edit: it can be saved as a file, which the commands send.
 *
 * @param {string} path
 * @param {Filled[]} inputs
 * @param {number} total
 * @param {AbortSignal} signal
 */
function fixed(path, inputs, total, signal) {
  const body = JSON.stringify({ inputs });
  const blob = new Blob([body], { type: "application/json" });
  const answer = answerRegion();
  const save = element("button", { type: "button", on: { click: () => download("request.json", blob) } }, t("tensors.save"));
  return [
    element("p", {}, t("tensors.zeros")),
    element("p", { class: "muted" }, t("tensors.not_edited", { count: number(total) })),
    element("p", { class: "row" }, sendButton(() => ask(path, blob, answer, signal)), save),
    answer,
    commands({ method: "POST", path, file: "request.json", contentType: "application/json" }),
  ];
}

function answerRegion() {
  return element("div", { class: "answer", "aria-live": "polite" });
}

/** @param {() => Promise<void>} send */
function sendButton(send) {
  const button = element("button", { type: "button", class: "primary", on: { click: clicked } }, t("tensors.send"));

  async function clicked() {
    button.disabled = true;
    await send();
    button.disabled = false;
    button.focus();
  }

  return button;
}

/**
 * @param {string} path
 * @param {object} body
 * @param {HTMLElement} answer
 * @param {AbortSignal} signal
 */
async function ask(path, body, answer, signal) {
  try {
    const { outputs } = await post(path, body, { signal, contentType: "application/json" });
    replace(answer, element("h3", {}, t("tensors.answer")), answerTable(outputs));
  } catch (error) {
    if (!signal.aborted) replace(answer, errorBox(error));
  }
}

/** @param {Filled[]} outputs */
function answerTable(outputs) {
  const header = ["name", "datatype", "shape", "values"].map((name) => t(`tensors.${name}`));
  const rows = outputs.map(({ name, datatype, shape, data }) => [
    element("code", {}, name),
    datatype,
    `[${shape.join(", ")}]`,
    element("code", {}, valuesText(data ?? [])),
  ]);
  return table(t("tensors.answer"), header, rows);
}

/** @param {any[]} data */
function valuesText(data) {
  const values = data.flat(Infinity);
  const shown = values.slice(0, SHOWN_VALUES).map((value) => (typeof value === "string" ? JSON.stringify(value) : String(value)));
  const text = shown.join(", ");
  return values.length > SHOWN_VALUES ? t("tensors.more_values", { values: text, count: number(values.length) }) : text;
}

/**
 * Returns the request as JSON with one line for each input.
 *
 * @param {Filled[]} inputs
 */
function requestText(inputs) {
  const lines = inputs.map((input) => `    ${JSON.stringify(input)}`);
  return `{\n  "inputs": [\n${lines.join(",\n")}\n  ]\n}`;
}
