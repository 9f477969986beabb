/** The Python call of a risk with medserve_client. */

import { clientProgram } from "../../commands.js";

/** @typedef {import("./features.js").Values} Values */
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
  const known = [...values].filter(([, value]) => value !== null);
  const parts = ["patient", `model=${literal(model.name)}`, `version=${literal(model.version)}`];
  parts.push(...(reasons ? [`reasons=${reasonsCode(reasons)}`] : []));
  const python = clientProgram({
    names: [...(reasons ? ["RiskReasons"] : []), ...(reasons?.whatIf ? ["WhatIf"] : [])],
    before: ["patient = {", ...known.map(([name, value]) => `    ${literal(name)}: ${literal(value)},`), "}"],
    call: [`response = client.predict_risk(${parts.join(", ")})`],
    after: [
      "for risk in response.results[0].risks:",
      "    print(risk.horizon, risk.risk)",
      ...(reasons?.shapley ? ["print(response.results[0].shapley)"] : []),
      ...(reasons?.whatIf ? ["print(response.results[0].what_if)"] : []),
    ],
  });
  return { python };
}

/** @param {Reasons} reasons */
function reasonsCode({ horizon, shapley, whatIf }) {
  const parts = [`horizon=${literal(horizon)}`, ...(shapley ? ["shapley=True"] : [])];
  if (whatIf) {
    const range = whatIf.points ? `, low=${whatIf.low}, high=${whatIf.high}, points=${whatIf.points}` : "";
    parts.push(`what_if=WhatIf(${literal(whatIf.feature)}${range})`);
  }
  return `RiskReasons(${parts.join(", ")})`;
}

/**
 * Returns a string or number as a Python literal: the escapes of JSON are also those of Python.
 *
 * @param {string | number | null} value
 */
function literal(value) {
  return JSON.stringify(value);
}
