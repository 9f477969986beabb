/** The Python call of a risk with medserve_client. */

import { hasToken } from "../api.js";
import { grpcTarget } from "../commands.js";

/** @typedef {import("./patient_features.js").Values} Values */
/** @typedef {{feature: string, low?: number, high?: number, points?: number}} WhatIf */
/** @typedef {{horizon: string, shapley?: boolean, whatIf?: WhatIf}} Reasons */

/**
 * Returns the program; it prints the risks and what was requested with them.
 *
 * @param {{name: string, version: string}} model
 * @param {Values} values
 * @param {Reasons} [reasons]
 * @returns {{python: string}}
 */
export function clientCode(model, values, reasons) {
  const secure = location.protocol === "https:";
  const options = [
    python(grpcTarget()),
    ...(secure ? ["tls=Tls()"] : []),
    ...(hasToken() ? ['token=os.environ["MEDSERVE_TOKEN"]'] : []),
  ];
  const names = ["Client", ...(reasons ? ["RiskReasons"] : []), ...(secure ? ["Tls"] : [])];
  names.push(...(reasons?.whatIf ? ["WhatIf"] : []));
  const call = ["patient", `model=${python(model.name)}`, `version=${python(model.version)}`];
  call.push(...(reasons ? [`reasons=${reasonsCode(reasons)}`] : []));
  const lines = [
    ...(hasToken() ? ["import os", ""] : []),
    `from medserve_client import ${names.join(", ")}`,
    "",
    "patient = {",
    ...[...values].filter(([, value]) => value !== null).map(([name, value]) => `    ${python(name)}: ${python(value)},`),
    "}",
    `with Client(${options.join(", ")}) as client:`,
    `    response = client.predict_risk(${call.join(", ")})`,
    "for risk in response.results[0].risks:",
    "    print(risk.horizon, risk.risk)",
    ...(reasons?.shapley ? ["print(response.results[0].shapley)"] : []),
    ...(reasons?.whatIf ? ["print(response.results[0].what_if)"] : []),
  ];
  return { python: lines.join("\n") };
}

/** @param {Reasons} reasons */
function reasonsCode({ horizon, shapley, whatIf }) {
  const parts = [`horizon=${python(horizon)}`, ...(shapley ? ["shapley=True"] : [])];
  if (whatIf) {
    const range = whatIf.points ? `, low=${whatIf.low}, high=${whatIf.high}, points=${whatIf.points}` : "";
    parts.push(`what_if=WhatIf(${python(whatIf.feature)}${range})`);
  }
  return `RiskReasons(${parts.join(", ")})`;
}

/**
 * Returns a string or number as a Python literal: the escapes of JSON are also those of Python.
 *
 * @param {string | number | null} value
 */
function python(value) {
  return JSON.stringify(value);
}
