import { element } from "../dom.js";
import { t } from "../language.js";

/**
 * Adds a style sheet to a view, which ends with it, and waits until it applies.
 *
 * @param {HTMLElement} root
 * @param {URL} url
 * @returns {Promise<void>}
 * @throws {Error} it cannot be loaded
 */
export function addStyle(root, url) {
  return new Promise((resolve, reject) => {
    const failed = () => reject(new Error(t("shell.style")));
    root.append(element("link", { rel: "stylesheet", href: url.href, on: { load: () => resolve(), error: failed } }));
  });
}
