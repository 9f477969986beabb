import { element } from "../dom.js";
import { t } from "../language.js";

/**
 * Shows all models.
 *
 * @param {HTMLElement} root
 * @param {{models: import("../app.js").Model[], signal: AbortSignal}} shown
 */
export async function show(root, { models }) {
  root.append(element("h1", {}, t("shell.models")));
  for (const model of models) {
    const address = `#/models/${encodeURIComponent(model.name)}/${encodeURIComponent(model.version)}`;
    root.append(element("p", {}, element("a", { href: address }, model.title || model.name)));
  }
}
