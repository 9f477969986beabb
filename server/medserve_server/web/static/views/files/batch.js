// Progress of many files, with the buttons that apply to all of them.

import { download, formatCsv } from "../../csv.js";
import { element, replace } from "../../dom.js";
import { t } from "../../language.js";

/**
 * Returns the bar; `update` shows the current counts.
 * @param {import("./worklist.js").Worklist<any>} worklist
 * @param {string} name  of the CSV file
 * @param {() => (string | number | null)[][]} csvRows
 * @param {() => void} onClear
 */
export function batchBar(worklist, name, csvRows, onClear) {
  const progress = element("progress", { "aria-label": t("files.progress") });
  const counts = element("p", {});
  const finished = element("p", { role: "status", class: "visually-hidden" });
  const button = (/** @type {string} */ text, /** @type {() => void} */ click) =>
    element("button", { type: "button", on: { click } }, text);
  const cancel = button(t("files.cancel"), () => worklist.cancel());
  const retry = button("", () => worklist.retry());
  const save = button(t("files.save_csv"), () => download(name, formatCsv(csvRows())));
  const clear = button(t("files.clear"), onClear);

  function update() {
    const { entries } = worklist;
    const failed = entries.filter(({ status }) => status === "failed").length;
    const done = entries.filter(({ status }) => status === "done").length;
    const pending = worklist.pending();
    const again = worklist.retryable();
    progress.max = Math.max(entries.length, 1);
    progress.value = done + failed;
    progress.hidden = cancel.hidden = pending === 0;
    retry.hidden = pending > 0 || again === 0;
    replace(retry, t("files.retry", { count: again }));
    const text = t("files.counts", { done, count: entries.length, failed });
    replace(counts, text);
    replace(finished, pending === 0 ? text : "");
  }

  return {
    node: element("div", { class: "row files-batch no-print" }, progress, counts, cancel, retry, save, clear, finished),
    update,
  };
}
