/** The list of all models and versions, each with its card. */

import { get } from "../api.js";
import { element, replace } from "../dom.js";
import { t } from "../language.js";
import { card } from "./card.js";
import { errorBox } from "./errors.js";

/** @typedef {import("../app.js").Model} Model */

/**
 * Shows all models.
 *
 * @param {HTMLElement} root
 * @param {{models: Model[], signal: AbortSignal}} shown
 */
export async function show(root, { models, signal }) {
  root.append(
    element("h1", {}, t("shell.models")),
    element("p", { class: "muted" }, t(models.length ? "models.intro" : "models.none")),
    ...models.map((model) => entry(model, signal)),
  );
}

/**
 * @param {Model} model
 * @param {AbortSignal} signal
 */
function entry(model, signal) {
  const address = `#/models/${encodeURIComponent(model.name)}/${encodeURIComponent(model.version)}`;
  const title = model.title || model.name;
  return element(
    "article",
    { class: "card model" },
    element("h2", {}, element("a", { href: address }, title)),
    element(
      "p",
      { class: "row" },
      element("span", { class: "badge" }, t(`models.task.${model.task}`)),
      element("span", { class: model.ready ? "badge success" : "badge danger" }, t(model.ready ? "models.ready" : "models.not_ready")),
      element("span", { class: "muted" }, t("shell.model", { name: model.name, version: model.version, provider: model.provider })),
    ),
    element(
      "p",
      { class: "row no-print" },
      element("a", { class: "button primary", href: address, "aria-label": `${t(`models.open.${model.task}`)}: ${title}` }, t(`models.open.${model.task}`)),
    ),
    model.task === "TASK_UNSPECIFIED" ? element("p", { class: "muted" }, t("models.no_card")) : cardDetails(model, signal),
  );
}

/**
 * Returns the card of a model, collapsed; it is loaded when it is opened for the first time.
 *
 * @param {Model} model
 * @param {AbortSignal} signal
 */
export function cardDetails(model, signal) {
  const content = element("div", {});
  const path = `/v1/models/${encodeURIComponent(model.name)}/versions/${encodeURIComponent(model.version)}/manifest`;
  let loaded = false;

  async function load() {
    if (loaded || !details.open) return;
    loaded = true;
    replace(content, element("p", { class: "loading", role: "status" }, t("shell.loading")));
    try {
      const { manifest, sha256 } = await get(path, signal);
      replace(content, card(manifest, sha256));
    } catch (error) {
      if (signal.aborted) return;
      loaded = false;
      replace(content, errorBox(error, load));
    }
  }

  const summary = element("summary", {}, t("models.card"), element("span", { class: "visually-hidden" }, `: ${model.title || model.name}`));
  const details = element("details", { class: "card-details", on: { toggle: load } }, summary, content);
  return details;
}
