/** The request on screen as commands for a terminal, for Python and for Node. */

import { get, hasToken } from "./api.js";
import { element } from "./dom.js";
import { t } from "./language.js";

/**
 * @typedef {object} Call
 * @property {"GET" | "POST"} method
 * @property {string} path path and query
 * @property {unknown} [body] sent as JSON
 * @property {string} [file] name of the file whose bytes are the body
 * @property {string} [contentType] of the file
 * @property {{medserve?: string, curl?: string, python?: string, node?: string}} [client] programs that are shown
 *     instead of the generated ones, and the command `medserve`, which is never generated
 */

/**
 * Returns a collapsed element with the request as curl, Python and Node calls. They run as shown: they contain the
 * address of this server, and read the token, if one is in use, from the environment variable MEDSERVE_TOKEN.
 *
 * @param {Call} call
 */
export function commands(call) {
  const texts = {
    ...(call.client?.medserve ? { medserve: call.client.medserve } : {}),
    curl: call.client?.curl ?? curl(call),
    Python: call.client?.python ?? python(call),
    Node: call.client?.node ?? node(call),
  };
  return element(
    "details",
    { class: "commands" },
    element("summary", {}, t("commands.title")),
    element("p", { class: "muted" }, t(hasToken() ? "commands.hint_token" : "commands.hint")),
    tabs(Object.entries(texts)),
  );
}

let target = "";

/**
 * Finds the address of gRPC, which has another port than the page with the transport grpcio.
 *
 * @param {AbortSignal} signal
 */
export async function findGrpcTarget(signal) {
  const { transport, grpcPort } = await get("/v1/status", signal);
  const port = transport === "grpcio" ? grpcPort : location.port || (location.protocol === "https:" ? 443 : 80);
  target = `${location.hostname}:${port}`;
}

/** Returns the address of gRPC, e.g. "127.0.0.1:8001". */
export function grpcTarget() {
  return target;
}

/**
 * Returns a Python program that calls this server with medserve_client.
 *
 * @param {object} program
 * @param {string[]} program.names what it imports from medserve_client besides Client and Tls
 * @param {string[]} [program.before] lines before the client is created
 * @param {string[]} program.call lines that use `client`
 * @param {string[]} program.after lines after the client is closed
 */
export function clientProgram({ names, before = [], call, after }) {
  const secure = location.protocol === "https:";
  const imported = ["Client", ...names, ...(secure ? ["Tls"] : [])].sort();
  const options = [
    JSON.stringify(target),
    ...(secure ? ["tls=Tls()"] : []),
    ...(hasToken() ? ['token=os.environ["MEDSERVE_TOKEN"]'] : []),
  ];
  return [
    ...(hasToken() ? ["import os", ""] : []),
    `from medserve_client import ${imported.join(", ")}`,
    "",
    ...before,
    `with Client(${options.join(", ")}) as client:`,
    ...call.map((line) => `    ${line}`),
    ...after,
  ].join("\n");
}

let count = 0;

/** @param {[string, string][]} texts */
function tabs(texts) {
  const id = `commands-${count++}`;
  const buttons = texts.map(([name], index) =>
    element("button", {
      type: "button",
      role: "tab",
      id: `${id}-tab-${index}`,
      "aria-controls": `${id}-panel-${index}`,
      on: { click: () => select(index), keydown: move },
    }, name),
  );
  const panels = texts.map(([name, text], index) =>
    element(
      "div",
      { role: "tabpanel", id: `${id}-panel-${index}`, "aria-labelledby": `${id}-tab-${index}` },
      element("pre", { tabindex: "0", role: "group", "aria-label": name }, element("code", {}, text)),
      copyButton(text),
    ),
  );

  /** @param {number} chosen */
  function select(chosen) {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", String(index === chosen));
      button.tabIndex = index === chosen ? 0 : -1;
      panels[index].hidden = index !== chosen;
    });
  }

  /** @param {KeyboardEvent} event */
  function move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    const current = buttons.findIndex((button) => button === event.target);
    const next = (current + step + buttons.length) % buttons.length;
    select(next);
    buttons[next].focus();
    event.preventDefault();
  }

  select(0);
  return element(
    "div",
    {},
    element("div", { class: "tabs", role: "tablist", "aria-label": t("commands.languages") }, ...buttons),
    ...panels,
  );
}

/** @param {string} text */
function copyButton(text) {
  const button = element("button", { type: "button", class: "copy", on: { click: copy } }, t("commands.copy"));
  const said = element("span", { class: "muted", role: "status" });

  async function copy() {
    // Without a secure context (a plain-text address other than localhost), browsers offer no clipboard.
    const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
    said.textContent = t(done ? "commands.copied" : "commands.not_copied");
  }

  return element("p", { class: "row" }, button, said);
}

/** @param {Call} call */
function curl(call) {
  const parts = [`curl ${shell(location.origin + call.path)}`];
  if (hasToken()) parts.push(`-H "Authorization: Bearer $MEDSERVE_TOKEN"`);
  if (call.file !== undefined) {
    parts.push(`-H ${shell(`Content-Type: ${typeOf(call)}`)}`, `--data-binary ${shell(`@${call.file}`)}`);
  } else if (call.body !== undefined) {
    parts.push(`-H 'Content-Type: application/json'`, `-d ${shell(JSON.stringify(call.body))}`);
  } else if (call.method === "POST") {
    parts.push("-X POST");
  }
  return parts.join(" \\\n  ");
}

/**
 * Returns a text as one word of a POSIX shell.
 *
 * @param {string} text
 */
export function shell(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {Call} call */
function typeOf(call) {
  return call.contentType ?? "application/octet-stream";
}

/** @param {Call} call */
function python(call) {
  const sendsFile = call.file !== undefined;
  const sendsJson = !sendsFile && call.body !== undefined;
  const type = sendsFile ? typeOf(call) : "application/json";
  const lines = ["import json", ...(hasToken() ? ["import os"] : [])];
  if (sendsFile) lines.push("from pathlib import Path");
  lines.push("from urllib.request import Request, urlopen", "");
  if (sendsJson) lines.push(`body = ${pythonLiteral(call.body)}`);
  lines.push("request = Request(", `    ${JSON.stringify(location.origin + call.path)},`);
  if (sendsFile) lines.push(`    data=Path(${JSON.stringify(call.file)}).read_bytes(),`);
  if (sendsJson) lines.push("    data=json.dumps(body).encode(),");
  if (sendsFile || sendsJson) lines.push(`    headers={"Content-Type": ${JSON.stringify(type)}},`);
  lines.push(`    method="${call.method}",`, ")");
  if (hasToken()) lines.push(`request.add_header("Authorization", f"Bearer {os.environ['MEDSERVE_TOKEN']}")`);
  lines.push("with urlopen(request) as response:", "    print(json.dumps(json.load(response), indent=2))");
  return lines.join("\n");
}

/**
 * Returns a JSON value as a Python expression.
 *
 * @param {any} value
 * @returns {string}
 */
function pythonLiteral(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
  return `{${entries.map(([key, entry]) => `${JSON.stringify(key)}: ${pythonLiteral(entry)}`).join(", ")}}`;
}

/** @param {Call} call */
function node(call) {
  const sendsFile = call.file !== undefined;
  const sendsJson = !sendsFile && call.body !== undefined;
  const headers = [];
  if (sendsFile) headers.push(`"Content-Type": ${JSON.stringify(typeOf(call))}`);
  if (sendsJson) headers.push(`"Content-Type": "application/json"`);
  if (hasToken()) headers.push("Authorization: `Bearer ${process.env.MEDSERVE_TOKEN}`");
  const lines = sendsFile ? [`const { readFile } = await import("node:fs/promises");`] : [];
  lines.push(`const response = await fetch(${JSON.stringify(location.origin + call.path)}, {`);
  lines.push(`  method: "${call.method}",`);
  if (headers.length) lines.push(`  headers: { ${headers.join(", ")} },`);
  if (sendsFile) lines.push(`  body: await readFile(${JSON.stringify(call.file)}),`);
  if (sendsJson) lines.push(`  body: JSON.stringify(${JSON.stringify(call.body)}),`);
  lines.push("});", "console.log(JSON.stringify(await response.json(), null, 2));");
  return lines.join("\n");
}
