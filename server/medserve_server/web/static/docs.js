/** The page /docs: the reference of the REST API, from the OpenAPI document of this server. */

import { get } from "./api.js";
import { element } from "./dom.js";
import { number, t } from "./language.js";
import { exampleOf, typeOf } from "./schemas.js";
import { decoded, start } from "./shell.js";
import { table } from "./views/card.js";
import { errorBox } from "./views/errors.js";

/** @typedef {import("./dom.js").Child} Child */

const render = start(show);
window.addEventListener("hashchange", openTarget);

/**
 * @param {HTMLElement} root
 * @param {AbortSignal} signal
 */
async function show(root, signal) {
  document.title = `${t("shell.docs")} – medserve`;
  const loading = element("p", { class: "loading", role: "status" }, t("shell.loading"));
  root.append(element("h1", {}, t("shell.docs")), loading);
  try {
    const api = await get("/openapi.json", signal);
    root.append(...reference(api));
    openTarget();
  } catch (error) {
    if (!signal.aborted) root.append(errorBox(error, () => void render()));
  } finally {
    loading.remove();
  }
}

/** @param {any} api */
function reference(api) {
  const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  );
  const tags = [...new Set(operations.map(({ operation }) => operation.tags[0]))];
  const groups = tags.map((tag) => {
    const inTag = operations.filter(({ operation }) => operation.tags[0] === tag);
    return group(tag, inTag.map((each) => operationDetails(each, api)));
  });
  const schemas = group(t("docs.schemas"), Object.entries(api.components.schemas).map(([name, schema]) => schemaDetails(name, schema)));
  const errors = element(
    "section",
    { class: "card" },
    element("h2", {}, t("docs.errors")),
    table(t("docs.errors"), [t("docs.http_status"), t("docs.meaning")], Object.entries(api.components.responses).map(([code, response]) => [code, prose(response.description)])),
  );
  return [
    element("p", {}, prose(api.info.description)),
    element("p", { class: "row" }, element("a", { class: "button", href: "openapi.json", download: "openapi.json" }, t("docs.download"))),
    search([...groups, schemas]),
    ...groups,
    errors,
    schemas,
  ];
}

/**
 * @param {string} title
 * @param {HTMLDetailsElement[]} entries
 */
function group(title, entries) {
  return element("section", { class: "group" }, element("h2", {}, title), ...entries);
}

/**
 * Returns the search field, which hides the entries that do not contain every word.
 *
 * @param {HTMLElement[]} groups
 */
function search(groups) {
  const found = element("p", { class: "muted", role: "status" });
  const input = element("input", { type: "search", id: "search", on: { input: filter } });

  function filter() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const group of groups) {
      const entries = [...group.querySelectorAll("details")];
      const matches = entries.filter((entry) => {
        const text = (entry.textContent ?? "").toLowerCase();
        entry.hidden = !words.every((word) => text.includes(word));
        return !entry.hidden;
      });
      group.hidden = !matches.length;
      count += matches.length;
    }
    found.textContent = words.length ? t("docs.found", { count: number(count) }) : "";
  }

  return element("div", { class: "field search" }, element("label", { for: "search" }, t("docs.search")), input, found);
}

/**
 * @param {{path: string, method: string, operation: any}} entry
 * @param {any} api
 */
function operationDetails({ path, method, operation }, api) {
  const { parameters = [], requestBody, responses, description = "", externalDocs } = operation;
  return element(
    "details",
    { class: "operation", id: operation.operationId },
    element("summary", {}, element("span", { class: "badge" }, method), " ", element("code", {}, path)),
    ...paragraphs(description),
    externalDocs ? element("p", {}, element("a", { href: externalDocs.url, rel: "noreferrer" }, t("docs.specification"))) : null,
    parameters.length ? table(t("docs.parameters"), ["name", "in", "type", "description"].map((name) => t(`docs.${name}`)), parameters.map(parameterRow)) : null,
    ...body(t("docs.request"), requestBody, api),
    ...Object.entries(responses)
      .filter(([code]) => code === "default" || Number(code) < 400)
      .flatMap(([code, response]) => body(t("docs.response", { code }), response, api)),
    element("p", { class: "muted" }, t("docs.other_statuses", { codes: Object.keys(responses).filter((code) => Number(code) >= 400).join(", ") || "–" })),
  );
}

/** @param {any} parameter */
function parameterRow({ name, in: place, schema, description = "" }) {
  const title = element("code", {}, name);
  return [title, t(`docs.in_${place}`), typeOf(schema), prose(description)];
}

/**
 * Returns the media types of a request or response, its schema, and an example.
 *
 * @param {string} title
 * @param {any} holder
 * @param {any} api
 */
function body(title, holder, api) {
  if (!holder) return [];
  const content = Object.entries(holder.content ?? {});
  const json = content.find(([type, { schema }]) => type === "application/json" && schema)?.[1];
  return [
    element("h3", {}, title),
    holder.description && holder.description !== "OK" ? element("p", {}, prose(holder.description)) : null,
    ...content.map(([type, { schema }]) => element("p", {}, element("code", {}, type), " ", schema ? typeOf(schema) : null)),
    ...(json ? [element("p", { class: "muted" }, t(json.example ? "docs.example" : "docs.all_fields")), exampleBlock(json, api)] : []),
  ];
}

/**
 * @param {any} json
 * @param {any} api
 */
function exampleBlock(json, api) {
  const text = JSON.stringify(json.example ?? exampleOf(json.schema, api), null, 2);
  return element("pre", { tabindex: "0", role: "group", "aria-label": t("docs.example") }, element("code", {}, text));
}

/**
 * @param {string} name
 * @param {any} schema
 */
function schemaDetails(name, schema) {
  const properties = Object.entries(schema.properties ?? {});
  return element(
    "details",
    { class: "schema", id: `schema-${name}` },
    element("summary", {}, element("code", {}, name)),
    ...paragraphs(schema.description ?? ""),
    properties.length
      ? table(t("docs.fields"), ["name", "type", "description"].map((key) => t(`docs.${key}`)), properties.map(([key, entry]) => [element("code", {}, key), typeOf(entry), prose(entry.description ?? "")]))
      : element("p", {}, typeOf(schema)),
  );
}

/** @param {string} text */
function paragraphs(text) {
  return text.split(/\n\n|\n(?=- )/).filter(Boolean).map((part) => element("p", {}, prose(part)));
}

/**
 * Returns text in which backticks mark code.
 *
 * @param {string} text
 */
function prose(text) {
  return element("span", {}, ...text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part)));
}

/** Opens the entry that the address names, so that links to it work. */
function openTarget() {
  const target = document.getElementById(decoded(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}
