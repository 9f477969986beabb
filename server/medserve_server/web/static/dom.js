/**
 * Creates elements. Text is always added as text nodes, never as HTML, since it may come from a manifest or a file.
 *
 * @typedef {Node | string | null} Child
 * @typedef {string | number | boolean | null | undefined} AttributeValue
 * @typedef {{on?: Record<string, (event: any) => void>} & Record<string, any>} Attributes
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Returns a new HTML element.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes} [attributes] `on` maps events to listeners; true sets an empty attribute; false, null and
 *     undefined set none
 * @param {...Child} children nodes, or strings, which become text nodes; null is skipped
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  fill(created, attributes, children);
  return created;
}

/**
 * Returns a new SVG element; see `element`.
 *
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[T]}
 */
export function svg(tag, attributes = {}, ...children) {
  const created = /** @type {SVGElementTagNameMap[T]} */ (document.createElementNS(SVG, tag));
  fill(created, attributes, children);
  return created;
}

/**
 * Replaces all children of an element.
 *
 * @param {Element} parent
 * @param {...Child} children
 */
export function replace(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null));
}

/**
 * @param {Element} target
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
function fill(target, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) target.addEventListener(event, listener);
    } else if (value === true) {
      target.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      target.setAttribute(name, String(value));
    }
  }
  target.append(...children.filter((child) => child !== null));
}
