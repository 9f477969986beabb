/** The page /: the list of models, and the view of one model by its task. */

import { get } from "./api.js";
import { findGrpcTarget } from "./commands.js";
import { element } from "./dom.js";
import { t } from "./language.js";
import { decoded, start } from "./shell.js";
import { errorBox } from "./views/errors.js";

/**
 * @typedef {object} Model a ModelSummary of /v1/models
 * @property {string} name
 * @property {string} version
 * @property {string} task
 * @property {string} title
 * @property {boolean} ready
 * @property {string} provider
 *
 * @typedef {object} Shown
 * @property {Model} model
 * @property {any} manifest the model's manifest, or null
 * @property {AbortSignal} signal ends with the view
 *
 * @typedef {{show: (root: HTMLElement, shown: Shown) => Promise<void>}} View
 */

/** The module of each task's view; any other model is shown by its tensors. */
const VIEWS = new Map([
  ["TASK_IMAGE_CLASSIFICATION", "./views/image/view.js"],
  ["TASK_IMAGE_SEGMENTATION", "./views/segmentation/view.js"],
  ["TASK_PATIENT_RISK", "./views/patient/view.js"],
]);
const TENSORS = "./views/tensors.js";

const render = start(show);
window.addEventListener("hashchange", async () => {
  await render();
  document.getElementById("main")?.focus();
  window.scrollTo(0, 0);
});

/**
 * @param {HTMLElement} root
 * @param {AbortSignal} signal
 */
async function show(root, signal) {
  const loading = element("p", { class: "loading", role: "status" }, t("shell.loading"));
  root.append(loading);
  try {
    const { models } = await get("/v1/models", signal);
    const route = location.hash.match(/^#\/models\/([^/]+)\/([^/]+)$/);
    if (route) {
      await showModel(root, models, decoded(route[1]), decoded(route[2]), signal);
    } else {
      document.title = "medserve";
      const { show: list } = await import("./views/models.js");
      await list(root, { models, signal });
    }
  } catch (error) {
    if (!signal.aborted) root.append(errorBox(error, () => void render()));
  } finally {
    loading.remove();
  }
}

/**
 * @param {HTMLElement} root
 * @param {Model[]} models
 * @param {string} name
 * @param {string} version
 * @param {AbortSignal} signal
 */
async function showModel(root, models, name, version, signal) {
  const model = models.find((other) => other.name === name && other.version === version);
  root.append(element("p", { class: "back" }, element("a", { href: "#/" }, t("shell.back"))));
  if (!model) {
    root.append(element("h1", {}, t("shell.no_model")), element("p", {}, t("shell.no_model_text", { name, version })));
    return;
  }
  document.title = `${model.title || model.name} – medserve`;
  root.append(
    element("h1", {}, model.title || model.name),
    element("p", { class: "muted" }, t("shell.model", { name, version, provider: model.provider })),
  );
  const path = `/v1/models/${encodeURIComponent(name)}/versions/${encodeURIComponent(version)}/manifest`;
  const manifest = model.task === "TASK_UNSPECIFIED" ? null : (await get(path, signal)).manifest;
  /** @type {View} */
  const view = await import(VIEWS.get(model.task) ?? TENSORS);
  await findGrpcTarget(signal);
  const body = element("div", { class: "body" });
  root.append(body);
  await view.show(body, { model, manifest, signal });
}
