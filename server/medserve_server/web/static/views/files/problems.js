// Files whose request failed.

import { element } from "../../dom.js";
import { hasText, t } from "../../language.js";
import { errorBox } from "../errors.js";
import { UnreadableFile } from "./content.js";

const BUSY = ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"];

/**
 * Returns whether an error may pass if the same request is sent again.
 * @param {Error | null} error
 */
export function isBusy(error) {
  return error !== null && "code" in error && BUSY.includes(/** @type {string} */ (error.code));
}

/**
 * Returns an error in words, with the server's message.
 * @param {Error} error
 */
export function errorText(error) {
  if (error instanceof UnreadableFile) return t("files.unreadable");
  const key = `error.${"code" in error ? error.code : "PAGE"}`;
  return [hasText(key) ? t(key) : "", error.message].filter(Boolean).join(" ");
}

/**
 * Returns why a file has no result, with a button that sends it again if that may help; null if there is no problem.
 * @param {import("./worklist.js").Entry<any>} entry
 * @param {() => void} again
 */
export function problem({ status, error }, again) {
  if (status === "cancelled") return element("button", { type: "button", on: { click: again } }, t("files.send"));
  if (error instanceof UnreadableFile) {
    return element("div", { class: "error", role: "alert" }, element("p", {}, t("files.unreadable")));
  }
  return error && errorBox(error, isBusy(error) ? again : undefined);
}
