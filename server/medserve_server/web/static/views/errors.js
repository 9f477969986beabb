import { ApiError } from "../api.js";
import { element } from "../dom.js";
import { hasText, t } from "../language.js";

/**
 * Returns a message about a failed call, with the server's message and the invalid fields.
 *
 * @param {unknown} error
 * @param {() => void} [retry] adds a button that tries again
 */
export function errorBox(error, retry) {
  const code = error instanceof ApiError ? error.code : "PAGE";
  const text = t(hasText(`error.${code}`) ? `error.${code}` : "error.OTHER", { code });
  const message = error instanceof Error ? error.message : String(error);
  const violations = error instanceof ApiError ? error.violations : [];
  const listed = violations.filter(({ field, description }) => message !== `${field}: ${description}`);
  return element(
    "div",
    { class: "error", role: "alert" },
    element("p", {}, element("strong", {}, text)),
    message ? element("p", { class: "server-message" }, message) : null,
    listed.length
      ? element("ul", {}, ...listed.map(({ field, description }) => element("li", {}, `${field}: ${description}`)))
      : null,
    retry ? element("button", { type: "button", on: { click: retry } }, t("error.retry")) : null,
  );
}
