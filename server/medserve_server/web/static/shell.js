/** The header of every page: navigation, language, token, and the notice that this is not a medical device. */

import { authentication, hasToken, setToken } from "./api.js";
import { element, replace } from "./dom.js";
import { currentLanguage, languageChanges, setLanguage, t } from "./language.js";

/** @typedef {(root: HTMLElement, signal: AbortSignal) => Promise<void>} Show */

const PAGES = [
  { path: "./", key: "shell.models" },
  { path: "./status", key: "shell.status" },
  { path: "./docs", key: "shell.docs" },
];

/**
 * Shows a page, and shows it again when the language or the token changes.
 *
 * @param {Show} show fills the element; `signal` ends when it is replaced
 * @returns {() => Promise<void>} shows the page again
 */
export function start(show) {
  const main = /** @type {HTMLElement} */ (document.getElementById("main"));
  const header = /** @type {HTMLElement} */ (document.getElementById("header"));
  const token = tokenForm(() => render());
  let shown = new AbortController();

  async function render() {
    shown.abort();
    shown = new AbortController();
    const { signal } = shown;
    replace(header, ...headerContent(token));
    const root = element("div", { class: "view" });
    replace(main, root);
    await show(root, signal);
  }

  authentication.addEventListener("unauthenticated", () => token.open());
  languageChanges.addEventListener("change", () => {
    token.translate();
    void render();
  });
  void render();
  return render;
}

/** @param {ReturnType<typeof tokenForm>} token */
function headerContent(token) {
  return [
    element("a", { class: "skip", href: "#main", on: { click: skip } }, t("shell.skip")),
    element(
      "div",
      { class: "bar" },
      element("a", { class: "brand", href: page("./") }, element("img", { src: "icon.svg", alt: "", width: 24, height: 24 }), "medserve"),
      element("nav", { "aria-label": t("shell.navigation") }, ...PAGES.map(navigationLink)),
      element("div", { class: "tools" }, token.button, languageChoice()),
    ),
    element("p", { class: "notice" }, t("shell.notice")),
    token.form,
  ];
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault(); // the part of the address after # is the view
  document.getElementById("main")?.focus();
}

/** @param {{path: string, key: string}} link */
function navigationLink({ path, key }) {
  const current = new URL(path, location.href).pathname === location.pathname;
  return element("a", { href: page(path), "aria-current": current ? "page" : null }, t(key));
}

/**
 * Returns the address of a page, with the chosen language.
 *
 * @param {string} path
 */
export function page(path) {
  return `${path}?language=${currentLanguage()}`;
}

/**
 * Returns a part of the address decoded, or as it is if it is not well-formed.
 *
 * @param {string} part
 */
export function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    return part;
  }
}

function languageChoice() {
  const choose = (/** @type {Event} */ event) => {
    const { value } = /** @type {HTMLSelectElement} */ (event.target);
    setLanguage(value === "zh" ? "zh" : "en");
    document.getElementById("language")?.focus();
  };
  return element(
    "select",
    { id: "language", "aria-label": t("shell.language"), on: { change: choose } },
    element("option", { value: "en", lang: "en", selected: currentLanguage() === "en" }, "English"),
    element("option", { value: "zh", lang: "zh", selected: currentLanguage() === "zh" }, "中文"),
  );
}

/**
 * Returns the button and the form for the token. The form is created once, so that typing survives a new rendering.
 *
 * @param {() => void} entered
 */
function tokenForm(entered) {
  const input = element("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false" });
  const label = element("label", { for: "token" });
  const hint = element("p", { class: "muted", id: "token-hint" });
  const wrong = element("p", { class: "invalid", role: "alert" });
  const submit = element("button", { type: "submit", class: "primary" });
  const form = element(
    "form",
    { class: "token", hidden: true, on: { submit: enter } },
    label,
    element("div", { class: "row" }, input, submit),
    hint,
    wrong,
  );
  const button = element("button", { type: "button", "aria-controls": "token-form", on: { click: toggle } });
  form.id = "token-form";
  input.setAttribute("aria-describedby", "token-hint");

  /** @param {Event} event */
  function enter(event) {
    event.preventDefault();
    const value = input.value.trim();
    if (!/^[\x21-\x7e]*$/.test(value)) {
      wrong.textContent = t("shell.token_invalid");
      return;
    }
    wrong.textContent = "";
    setToken(value);
    setOpen(false);
    translate();
    entered();
  }

  /** @param {boolean} open */
  function setOpen(open) {
    form.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
  }

  function toggle() {
    setOpen(Boolean(form.hidden));
    if (!form.hidden) input.focus();
  }

  function open() {
    if (!form.hidden) return;
    setOpen(true);
    input.focus();
  }

  function translate() {
    label.textContent = t("shell.token");
    submit.textContent = t("shell.token_use");
    hint.textContent = t("shell.token_hint");
    button.textContent = t(hasToken() ? "shell.token_set" : "shell.token");
  }

  setOpen(false);
  translate();
  return { form, button, open, translate };
}
