/** Texts and number formats in the chosen language. It is kept in the URL (?language=zh), since nothing is stored. */

import { en } from "./strings/en.js";
import { zh } from "./strings/zh.js";

/** @typedef {"en" | "zh"} Language */

/** @type {Record<Language, Record<string, string>>} */
const TABLES = { en, zh };
const LOCALES = { en: "en-US", zh: "zh-CN" };

/** Receives the event `change` after `setLanguage`. */
export const languageChanges = new EventTarget();

/** @type {Language} */
let language = chosen();
document.documentElement.lang = LOCALES[language];

/** @returns {Language} */
function chosen() {
  const given = new URLSearchParams(location.search).get("language") ?? navigator.language;
  return given.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** @returns {Language} */
export function currentLanguage() {
  return language;
}

/**
 * Changes the language and renders the page again.
 *
 * @param {Language} next
 */
export function setLanguage(next) {
  language = next;
  document.documentElement.lang = LOCALES[next];
  const url = new URL(location.href);
  url.searchParams.set("language", next);
  history.replaceState(null, "", url);
  languageChanges.dispatchEvent(new Event("change"));
}

/**
 * Whether there is a text with this key, for keys that contain a code from the server.
 *
 * @param {string} key
 */
export function hasText(key) {
  return key in TABLES[language];
}

/**
 * Returns the text with this key.
 *
 * @param {string} key
 * @param {Record<string, string | number>} [values] values of the placeholders `{name}`
 */
export function t(key, values = {}) {
  const text = TABLES[language][key];
  if (text === undefined) throw new Error(`no text for ${key} in ${language}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    if (!(name in values)) throw new Error(`no value for {${name}} of ${key}`);
    return String(values[name]);
  });
}

/**
 * Formats a number; none is shown as negative zero.
 *
 * @param {number} value
 * @param {number} [digits] number of decimal places; by default as many as needed, at most 3
 */
export function number(value, digits) {
  const options = digits === undefined ? {} : { minimumFractionDigits: digits, maximumFractionDigits: digits };
  const { format } = new Intl.NumberFormat(LOCALES[language], options);
  const text = format(value);
  return text === format(-0) ? format(0) : text;
}

/**
 * Formats a fraction as a percentage. Only 0 and 1 are shown as 0 % and 100 %; a value that rounds to them is shown as
 * below or above the nearest other value, e.g. ">99.9%" or ">-0.1%".
 *
 * @param {number} value 1 is 100 %
 * @param {number} [digits] number of decimal places
 */
export function percent(value, digits = 1) {
  const options = /** @type {const} */ ({
    style: "percent",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  const { format } = new Intl.NumberFormat(LOCALES[language], options);
  const text = format(value);
  const step = 10 ** (-digits - 2);
  if (text === format(-0)) return value < 0 ? `>${format(-step)}` : format(0);
  if (value > 0 && text === format(0)) return `<${format(step)}`;
  if (value < 1 && text === format(1)) return `>${format(1 - step)}`;
  return text;
}
