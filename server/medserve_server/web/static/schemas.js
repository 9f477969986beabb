/** JSON schemas of the OpenAPI document as text and as examples. */

import { element } from "./dom.js";
import { t } from "./language.js";

/**
 * Returns the type of a schema, with links to the schemas that it refers to.
 *
 * @param {any} schema
 * @returns {HTMLElement}
 */
export function typeOf(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return element("a", { href: `#schema-${name}` }, name);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) {
    const parts = choices.flatMap((/** @type {any} */ choice, /** @type {number} */ index) => (index ? [t("docs.or"), typeOf(choice)] : [typeOf(choice)]));
    return element("span", {}, ...parts);
  }
  if (schema.enum) return element("span", {}, ...separated(schema.enum.map((/** @type {any} */ value) => element("code", {}, String(value)))));
  if (schema.type === "array" && schema.items) return element("span", {}, t("docs.array_of"), typeOf(schema.items));
  return element("span", {}, schema.contentEncoding ?? schema.type ?? t("docs.any"));
}

/** @param {Node[]} nodes */
function separated(nodes) {
  return nodes.flatMap((node, index) => (index ? [", ", node] : [node]));
}

/**
 * Returns a value that has every field of a schema; a schema that contains itself ends with an empty object.
 *
 * @param {any} schema
 * @param {any} api
 * @param {string[]} [inside] names of the schemas around this one
 * @returns {any}
 */
export function exampleOf(schema, api, inside = []) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return inside.includes(name) ? {} : exampleOf(api.components.schemas[name], api, [...inside, name]);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return exampleOf(choices[0], api, inside);
  if (schema.enum) return schema.enum[Math.min(1, schema.enum.length - 1)];
  if (schema.type === "array") return schema.items ? [exampleOf(schema.items, api, inside)] : [0];
  if (schema.type === "object" || schema.properties) {
    const entries = Object.entries(schema.properties ?? {});
    return Object.fromEntries(entries.map(([name, entry]) => [name, exampleOf(entry, api, inside)]));
  }
  if (schema.type === "integer" || schema.type === "number") return 0;
  if (schema.type === "boolean") return false;
  return schema.contentEncoding === "base64" ? "aW1hZ2U=" : "text";
}
