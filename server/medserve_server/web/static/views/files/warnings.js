// The warnings of a result, and the values that say where it comes from.

import { element } from "../../dom.js";
import { hasText, number, t } from "../../language.js";

/** @typedef {{kind: string, message: string}} Warning */

/**
 * Returns the warnings in words, each with the server's message.
 * @param {{warnings: Warning[]}} result
 */
export function warnings({ warnings: found }) {
  if (!found.length) return element("p", { class: "muted" }, t("files.no_warnings"));
  const items = found.map(({ kind, message }) =>
    element(
      "li",
      {},
      element("strong", {}, t("files.warning", { kind: warningName(kind) })),
      " ",
      element("span", { lang: "en" }, message),
    ),
  );
  return element(
    "section",
    { class: "files-warnings" },
    element("h3", {}, t("files.warnings")),
    element("ul", {}, ...items),
  );
}

/**
 * Returns the name of a kind of warning; a general one for kinds of newer servers.
 * @param {string} kind
 */
export function warningName(kind) {
  const key = `files.${kind}`;
  return t(hasText(key) ? key : "files.KIND_UNSPECIFIED");
}

/**
 * Returns further values of a result; null if there are none.
 * @param {{novelty?: number, sopInstanceUid?: string}} result
 * @param {{novelty?: {threshold: number}} | null} task
 */
export function furtherValues({ novelty, sopInstanceUid }, task) {
  const values = [
    ...(novelty === undefined ? [] : [{ name: t("files.novelty"), text: noveltyText(novelty, task?.novelty) }]),
    ...(sopInstanceUid === undefined ? [] : [{ name: t("files.sop_instance_uid"), text: sopInstanceUid }]),
  ];
  if (!values.length) return null;
  return element(
    "dl",
    { class: "files-further" },
    ...values.flatMap(({ name, text }) => [element("dt", {}, name), element("dd", {}, text)]),
  );
}

/**
 * @param {number} novelty
 * @param {{threshold: number}} [measured]
 */
function noveltyText(novelty, measured) {
  const value = number(novelty, 2);
  return measured ? t("files.novelty_threshold", { value, threshold: number(measured.threshold, 2) }) : value;
}
