/** Calls of the REST API on the page's origin. The token is kept in memory only. */

/** @typedef {{field: string, description: string}} Violation */

let token = "";

/** Receives the event `unauthenticated` when the server requires a token or does not accept the given one. */
export const authentication = new EventTarget();

/** gRPC status by HTTP status, for errors without one. */
const CODES = new Map([
  [400, "INVALID_ARGUMENT"],
  [401, "UNAUTHENTICATED"],
  [403, "PERMISSION_DENIED"],
  [404, "NOT_FOUND"],
  [408, "DEADLINE_EXCEEDED"],
  [413, "RESOURCE_EXHAUSTED"],
  [415, "INVALID_ARGUMENT"],
  [429, "RESOURCE_EXHAUSTED"],
  [501, "UNIMPLEMENTED"],
  [503, "UNAVAILABLE"],
  [504, "DEADLINE_EXCEEDED"],
]);

/** A call that ended with an error. */
export class ApiError extends Error {
  /**
   * @param {number} httpStatus 0 if there was no response
   * @param {string} code name of the gRPC status, e.g. "INVALID_ARGUMENT"
   * @param {string} message the server's message
   * @param {Violation[]} violations the fields that are invalid
   */
  constructor(httpStatus, code, message, violations = []) {
    super(message);
    this.httpStatus = httpStatus;
    this.code = code;
    this.violations = violations;
  }
}

/**
 * Sets the token of all further calls; empty for none.
 *
 * @param {string} value
 */
export function setToken(value) {
  token = value;
}

/** Whether calls send a token. */
export function hasToken() {
  return token !== "";
}

/**
 * Returns the path of a method of a model, e.g. `modelPath(model, "classify")`.
 *
 * @param {{name: string, version: string}} model
 * @param {string} method
 */
export function modelPath(model, method) {
  return `/v1/models/${encodeURIComponent(model.name)}/versions/${encodeURIComponent(model.version)}:${method}`;
}

/**
 * Returns the JSON of a GET request.
 *
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 * @throws {ApiError} the call failed
 * @throws {DOMException} AbortError: the signal was aborted
 */
export function get(path, signal) {
  return call(path, { method: "GET", signal });
}

/**
 * Returns the JSON of a POST request.
 *
 * @param {string} path
 * @param {object | Blob | ArrayBuffer} body an object is sent as JSON
 * @param {{signal?: AbortSignal, contentType?: string}} [options]
 * @returns {Promise<any>}
 * @throws {ApiError} the call failed
 * @throws {DOMException} AbortError: the signal was aborted
 */
export function post(path, body, { signal, contentType } = {}) {
  const isBytes = body instanceof Blob || body instanceof ArrayBuffer;
  const type = contentType ?? (isBytes ? "application/octet-stream" : "application/json");
  return call(path, {
    method: "POST",
    body: isBytes ? body : JSON.stringify(body),
    headers: { "Content-Type": type },
    signal,
  });
}

/**
 * @param {string} path
 * @param {{method: string, body?: BodyInit, headers?: Record<string, string>, signal?: AbortSignal}} request
 */
async function call(path, request) {
  const headers = { ...request.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response, text;
  try {
    response = await fetch(path, { ...request, headers, credentials: "omit", cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "UNAVAILABLE", "");
  }
  const content = parsed(text);
  if (response.ok && content !== undefined) return content;
  if (response.ok) throw new ApiError(response.status, "INTERNAL", text.slice(0, 200));
  const error = failure(response.status, content, text);
  if (error.code === "UNAUTHENTICATED") authentication.dispatchEvent(new Event("unauthenticated"));
  throw error;
}

/** @param {string} text */
function parsed(text) {
  try {
    return text ? JSON.parse(text) : {};
  } catch {
    return undefined;
  }
}

/**
 * Returns the error in a response: `{"error": {status, message, details}}` under /v1, `{"error": TEXT}` under /v2.
 *
 * @param {number} status
 * @param {any} content
 * @param {string} text
 */
function failure(status, content, text) {
  const error = content?.error;
  const code = error?.status ?? CODES.get(status) ?? "INTERNAL";
  const message = typeof error === "string" ? error : (error?.message ?? text.slice(0, 200));
  /** @type {Violation[]} */
  const violations = (error?.details ?? [])
    .flatMap((/** @type {any} */ detail) => detail.fieldViolations ?? [])
    .map((/** @type {any} */ entry) => ({ field: entry.field ?? "", description: entry.description ?? "" }));
  return new ApiError(status, code, message, violations);
}
