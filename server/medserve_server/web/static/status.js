/** The page /status: what the answering process serves, and its requests over the last minutes. */

import { get } from "./api.js";
import { line } from "./charts.js";
import { element, replace } from "./dom.js";
import { number, t } from "./language.js";
import { durationQuantile, Samples } from "./samples.js";
import { start } from "./shell.js";
import { definitions, table } from "./views/card.js";
import { errorBox } from "./views/errors.js";

const INTERVAL_MS = 3000;
const MINUTES = 5;
const WINDOWS = [30, 60, 300];

const samples = new Samples(MINUTES * 60);

const render = start(show);

/**
 * @param {HTMLElement} root
 * @param {AbortSignal} signal
 */
async function show(root, signal) {
  document.title = `${t("shell.status")} – medserve`;
  const content = element("div", {}, element("p", { class: "loading", role: "status" }, t("shell.loading")));
  root.append(element("h1", {}, t("shell.status")), element("p", { class: "muted" }, t("status.intro")), content);
  try {
    while (!signal.aborted) {
      const status = await get("/v1/status", signal);
      samples.add(performance.now() / 1000, status);
      update(content, status);
      await pause(INTERVAL_MS, signal);
    }
  } catch (error) {
    if (!signal.aborted) replace(content, errorBox(error, () => void render()));
  }
}

/**
 * Waits; returns early if the signal is aborted.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve(undefined);
    });
  });
}

/**
 * Shows a status. Only texts and charts are replaced, so that the scroll position and the focus stay.
 *
 * @param {HTMLElement} content
 * @param {any} status
 */
function update(content, status) {
  const parts = [server(status), models(status), charts(status), windows(status), refusals(status)];
  const names = ["server", "models", "charts", "windows", "refusals"];
  if (!content.querySelector("section")) {
    replace(content, ...names.map((name) => element("section", { class: "card", id: name })));
  }
  names.forEach((name, index) => {
    const section = content.querySelector(`#${name}`);
    if (section && !section.contains(document.activeElement)) replace(section, ...parts[index]);
  });
}

/** @param {any} status */
function server(status) {
  return [
    element("h2", {}, t("status.server")),
    definitions([
      [t("status.version"), `medserve ${status.version}, ONNX Runtime ${status.onnxruntime}, Python ${status.python}`],
      [t("status.transport"), status.transport],
      [t("status.workers"), number(status.workers)],
      [t("status.uptime"), uptime(status.uptimeSeconds)],
      [t("status.process"), String(status.process)],
    ]),
    status.workers > 1 ? element("p", { class: "warning" }, t("status.one_of", { workers: status.workers })) : null,
  ];
}

/** @param {number} seconds */
function uptime(seconds) {
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (hours >= 24) return t("status.days", { days: Math.floor(hours / 24), hours: hours % 24 });
  if (hours) return t("status.hours", { hours, minutes: minutes % 60 });
  return t("status.minutes_text", { minutes });
}

/** @param {any} status */
function models(status) {
  const header = ["model", "provider", "ready", "pending", "inflight", "succeeded", "failed", "rows"];
  const rows = status.models.map((/** @type {any} */ model) => [
    element("span", {}, `${model.name} `, element("span", { class: "muted" }, model.version)),
    t("status.provider_text", { provider: model.provider, threads: model.threads ?? "", precision: model.precision ?? "" }),
    t(model.ready ? "models.ready" : "models.not_ready"),
    ...["pending", "inflight", "succeeded", "failed", "rows"].map((name) => number(model[name] ?? 0)),
  ]);
  return [
    element("h2", {}, t("status.models")),
    element("p", { class: "muted" }, t("status.models_caption")),
    table(t("status.models_caption"), header.map((name) => t(`status.column.${name}`)), rows),
  ];
}

/** @param {any} status */
function charts(status) {
  const steps = samples.steps(status.process);
  const x = steps.map(({ age }) => -age / 60);
  const succeeded = steps.map((step) => step.succeeded / step.seconds);
  const failed = steps.map((step) => step.failed / step.seconds);
  const median = steps.map((step) => 1000 * durationQuantile(status.durationBounds, step.durations, 0.5));
  const slow = steps.map((step) => 1000 * durationQuantile(status.durationBounds, step.durations, 0.95));
  const shared = { x: [-MINUTES, ...x, 0], xLabel: t("status.minutes"), format: (/** @type {number} */ value) => number(value) };
  const ends = (/** @type {number[]} */ values) => [NaN, ...values, values[values.length - 1] ?? NaN];
  return [
    element("h2", {}, t("status.load", { minutes: MINUTES })),
    element(
      "div",
      { class: "columns" },
      line({
        ...shared,
        yLabel: t("status.rate"),
        yMax: roundedUp(Math.max(1, ...succeeded, ...failed)),
        series: [
          { label: t("status.column.succeeded"), y: ends(succeeded) },
          { label: t("status.column.failed"), y: ends(failed) },
        ],
      }),
      line({
        ...shared,
        yLabel: t("status.latency"),
        yMax: roundedUp(Math.max(1, ...slow.filter(Number.isFinite))),
        series: [
          { label: t("status.median"), y: ends(median) },
          { label: t("status.p95"), y: ends(slow) },
        ],
      }),
    ),
  ];
}

/** @param {any} status */
function windows(status) {
  const header = ["window", "requests", "rate", "failed", "median", "p95"].map((name) => t(`status.${name}`));
  const milliseconds = (/** @type {number[]} */ durations, /** @type {number} */ fraction) => {
    const seconds = durationQuantile(status.durationBounds, durations, fraction);
    return Number.isFinite(seconds) ? t("status.milliseconds", { value: number(1000 * seconds) }) : "–";
  };
  const rows = WINDOWS.map((seconds) => {
    const sum = samples.total(status.process, seconds);
    const requests = sum.succeeded + sum.failed;
    return [
      t("status.last_seconds", { seconds }),
      number(requests),
      sum.seconds ? number(requests / sum.seconds, 1) : "–",
      number(sum.failed),
      milliseconds(sum.durations, 0.5),
      milliseconds(sum.durations, 0.95),
    ];
  });
  return [
    element("h2", {}, t("status.windows")),
    table(t("status.windows"), header, rows),
    element("p", { class: "muted" }, t("status.sampled", { seconds: INTERVAL_MS / 1000 })),
  ];
}

/** @param {any} status */
function refusals(status) {
  const entries = Object.entries(status.refused);
  return [
    element("h2", {}, t("status.refused")),
    entries.length
      ? table(t("status.refused_caption"), [t("status.reason"), t("status.requests")], entries.map(([reason, count]) => [element("code", {}, reason), number(count)]))
      : element("p", { class: "muted" }, t("status.none_refused")),
  ];
}

/**
 * Rounds up to 1, 2 or 5 times a power of ten.
 *
 * @param {number} value
 */
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((bound) => bound >= value) ?? value;
}
