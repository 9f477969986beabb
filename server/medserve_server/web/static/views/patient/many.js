/** The risks of many patients in a CSV file. */

import { download } from "../../csv.js";
import { element, replace } from "../../dom.js";
import { number, percent, t } from "../../language.js";
import { errorBox } from "../errors.js";
import { rowValues } from "./columns.js";
import { warningText } from "./result.js";
import { continueRun, createRun, resultsFile } from "./run.js";
import { TableError, readTable } from "./table.js";

/** @typedef {import("./features.js").RiskTask} RiskTask */
/** @typedef {import("./run.js").Run} Run */

const MAX_MIB = 32;
const MAX_ROWS = 100_000;
// Rows, and errors, that are shown on the page; the file has all.
const SHOWN = 100;

/**
 * Returns the section.
 *
 * @param {import("../../app.js").Model} model
 * @param {RiskTask} task
 * @param {AbortSignal} signal ends the requests
 */
export function manySection(model, task, signal) {
  let running = new AbortController();
  const input = element("input", {
    id: "patient-file",
    type: "file",
    accept: ".csv,.tsv,.txt,text/csv,text/tab-separated-values",
    "aria-describedby": "patient-file-hint",
    on: { change: () => void choose() },
  });
  const state = element("div", { class: "patient-run" });
  const outcome = element("div", {});

  async function choose() {
    const file = input.files?.[0];
    running.abort();
    replace(state);
    replace(outcome);
    input.value = ""; // so that the same file can be chosen again after a correction
    if (!file) {
      return;
    }
    try {
      const table = readTable(await fileText(file), MAX_ROWS);
      await score(createRun(table, task, model.name), file.name);
    } catch (error) {
      if (!(error instanceof TableError)) {
        throw error;
      }
      replace(outcome, element("p", { class: "error", role: "alert" }, `${file.name}: ${error.message}`));
    }
  }

  /**
   * @param {Run} run
   * @param {string} name
   */
  async function score(run, name) {
    running = new AbortController();
    const ended = AbortSignal.any([running.signal, signal]);
    const own = running;
    const total = run.table.rows.length;
    const bar = element("progress", { max: total, value: 0, "aria-label": t("patient.many_progress") });
    const text = element("span", { role: "status" });
    const progressed = () => {
      bar.value = run.scored.length;
      text.textContent = t("patient.many_done", { done: number(run.scored.length), total: number(total), name });
    };
    const again = () => void score(run, name);
    progressed();
    replace(outcome);
    const cancel = element("button", { type: "button", on: { click: () => own.abort() } }, t("patient.many_cancel"));
    replace(state, bar, text, cancel);
    try {
      await continueRun(run, model, ended, progressed);
      cancel.remove();
      replace(outcome, ...finished(run, task, name));
    } catch (error) {
      if (own !== running || signal.aborted) {
        return; // another file, or the end of the view
      }
      cancel.remove();
      const isCanceled = error instanceof DOMException && error.name === "AbortError";
      const resume = element("button", { type: "button", on: { click: again } }, t("patient.many_continue"));
      replace(outcome, ...(isCanceled ? [element("p", {}, t("patient.many_canceled")), resume] : [errorBox(error, again)]));
    }
  }

  return element(
    "section",
    { class: "card no-print", "aria-labelledby": "patient-many" },
    element("h2", { id: "patient-many" }, t("patient.many_title")),
    element("label", { for: "patient-file" }, t("patient.many_choose")),
    element("p", {}, input),
    element("p", { class: "patient-hint", id: "patient-file-hint" }, t("patient.many_hint", { mib: MAX_MIB, rows: number(MAX_ROWS) })),
    state,
    outcome,
  );
}

/**
 * Reads a file of bounded size.
 *
 * @param {File} file
 * @throws {TableError}
 */
async function fileText(file) {
  if (file.size > MAX_MIB * 2 ** 20) {
    throw new TableError(t("patient.many_too_large", { size: number(file.size / 2 ** 20, 1), mib: MAX_MIB }));
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch (error) {
    if (error instanceof TypeError) {
      throw new TableError(t("patient.many_not_utf8"));
    }
    if (error instanceof DOMException) {
      throw new TableError(t("patient.many_unreadable"));
    }
    throw error;
  }
}

/**
 * @param {Run} run
 * @param {RiskTask} task
 * @param {string} name
 */
function finished(run, task, name) {
  const failed = run.scored.flatMap(({ errors }, index) =>
    errors.map((error) => t("patient.many_row_error", { line: run.table.rows[index].line, error })),
  );
  const resultName = `${name.replace(/\.[^.]*$/, "")}-risk.csv`;
  const save = () => download(resultName, new Blob([resultsFile(run)], { type: "text/csv;charset=utf-8" }));
  return [
    element("p", {}, element("button", { type: "button", class: "primary", on: { click: save } }, t("patient.many_save", { name: resultName }))),
    failed.length
      ? element(
          "div",
          { class: "error", role: "alert" },
          element("p", {}, t("patient.many_errors", { count: run.scored.filter(({ errors }) => errors.length).length })),
          element("ul", {}, ...failed.slice(0, SHOWN).map((text) => element("li", {}, text))),
          failed.length > SHOWN ? element("p", {}, t("patient.many_more_errors", { count: number(failed.length - SHOWN) })) : null,
        )
      : null,
    ...remarks(run, task),
    resultsTable(run, task),
  ];
}

/**
 * Returns which columns were only copied, and which features have none.
 *
 * @param {Run} run
 * @param {RiskTask} task
 */
function remarks({ table, columns }, task) {
  const carried = table.columns.filter((_, index) => !columns.has(index));
  const found = new Set([...columns.values()].map(({ name }) => name));
  const absent = task.features.map(({ name }) => name).filter((name) => !found.has(name));
  return [
    carried.length ? element("p", { class: "patient-hint" }, t("patient.many_carried", { names: carried.join(", ") })) : null,
    absent.length ? element("p", { class: "patient-hint" }, t("patient.many_absent", { names: absent.join(", ") })) : null,
  ];
}

/**
 * @param {Run} run
 * @param {RiskTask} task
 */
function resultsTable({ table, columns, scored }, task) {
  const { event, horizons } = task;
  const label = table.columns.findIndex((_, index) => !columns.has(index)); // identifies the patients
  const head = [
    t("patient.many_line"),
    ...(label < 0 ? [] : [table.columns[label]]),
    ...horizons.map((horizon) => horizon.label),
    t("patient.group_title"),
    t("patient.warnings_title"),
  ];
  const rows = scored.slice(0, SHOWN).map(({ result }, index) => {
    const { line, cells } = table.rows[index];
    const { values } = rowValues(table.rows[index], table.columns.length, columns);
    const risks = result ? result.risks.map(({ risk }) => percent(risk)) : horizons.map(() => "–");
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, String(line)),
      label < 0 ? null : element("td", { class: "patient-id" }, cells[label] ?? ""),
      ...risks.map((risk) => element("td", { class: "numeric" }, risk)),
      element("td", {}, result?.riskGroup ?? t("patient.many_not_scored")),
      element("td", {}, result ? result.warnings.map((warning) => warningText(task, values, result, warning)).join(" ") : ""),
    );
  });
  const caption = t("patient.many_table", { event, shown: number(rows.length), total: number(scored.length) });
  return element(
    "div",
    { class: "table-scroll patient-many", tabindex: "0", role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...rows),
    ),
  );
}
