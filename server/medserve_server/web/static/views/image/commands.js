// The request on screen as commands.

import { hasToken, modelPath } from "../../api.js";
import { clientProgram, commands, shell } from "../../commands.js";

/** @typedef {import("./requests.js").Reasons} Reasons */

/**
 * Returns the element with the commands.
 * @param {import("./requests.js").Model} model
 * @param {import("./view.js").Entry} entry
 * @param {Reasons | null} reasons
 */
export function imageCommands(model, { file, format, resultFrame: frame }, reasons) {
  const path = modelPath(model, "classify");
  const plain = frame === 0 && reasons === null;
  const url = location.origin + path;
  return commands({
    method: "POST",
    path,
    file: file.name,
    contentType: format.contentType,
    client: {
      python: python(model, file.name, frame, reasons),
      ...(plain ? {} : { curl: curl(url, file.name, frame, reasons), node: node(url, file.name, frame, reasons) }),
    },
  });
}

/**
 * @param {string} url
 * @param {string} name
 * @param {number} frame
 * @param {Reasons | null} reasons
 */
function curl(url, name, frame, reasons) {
  const start = frame > 0 ? `{"images": [{"frame": ${frame}, "encoded": "` : '{"images": [{"encoded": "';
  const end = reasons ? `"}], "reasons": ${JSON.stringify(reasons)}}` : '"}]}';
  return [
    "{",
    `  printf %s ${shell(start)}`,
    `  base64 < ${shell(name)} | tr -d '\\n'`,
    `  printf %s ${shell(end)}`,
    `} | curl ${shell(url)} \\`,
    ...(hasToken() ? ['  -H "Authorization: Bearer $MEDSERVE_TOKEN" \\'] : []),
    "  -H 'Content-Type: application/json' \\",
    "  --data-binary @-",
  ].join("\n");
}

/**
 * @param {string} url
 * @param {string} name
 * @param {number} frame
 * @param {Reasons | null} reasons
 */
function node(url, name, frame, reasons) {
  const image = frame > 0 ? `{ encoded, frame: ${frame} }` : "{ encoded }";
  const rest = reasons ? `, reasons: ${JSON.stringify(reasons)}` : "";
  const token = hasToken() ? ", Authorization: `Bearer ${process.env.MEDSERVE_TOKEN}`" : "";
  return [
    'const { readFile } = await import("node:fs/promises");',
    `const encoded = await readFile(${JSON.stringify(name)}, "base64");`,
    `const response = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    `  headers: { "Content-Type": "application/json"${token} },`,
    `  body: JSON.stringify({ images: [${image}]${rest} }),`,
    "});",
    "console.log(JSON.stringify(await response.json(), null, 2));",
  ].join("\n");
}

/**
 * @param {import("./requests.js").Model} model
 * @param {string} name
 * @param {number} frame
 * @param {Reasons | null} reasons
 */
function python(model, name, frame, reasons) {
  const values = [
    JSON.stringify(name),
    `model=${JSON.stringify(model.name)}`,
    `version=${JSON.stringify(model.version)}`,
    ...(frame > 0 ? [`frame=${frame}`] : []),
    ...(reasons ? [`reasons=ImageReasons(${pythonReasons(reasons)})`] : []),
  ];
  return clientProgram({
    names: reasons ? ["ImageReasons"] : [],
    call: ["response = client.classify(", ...values.map((value) => `    ${value},`), ")"],
    after: [
      "result = response.results[0]",
      "print(result.decision.label, [(one.label, one.probability) for one in result.labels])",
      ...printedReasons(reasons),
    ],
  });
}

/** @param {Reasons} reasons */
function pythonReasons({ label, occlusion, classActivation, featureMaps }) {
  return [
    ...(label ? [`label=${JSON.stringify(label)}`] : []),
    ...(occlusion ? ["occlusion=True"] : []),
    ...(classActivation ? ["class_activation=True"] : []),
    ...(featureMaps ? [`feature_maps=${JSON.stringify(featureMaps)}`] : []),
  ].join(", ");
}

/** @param {Reasons | null} reasons */
function printedReasons(reasons) {
  if (reasons?.occlusion) return ["print(result.occlusion.values)"];
  if (reasons?.classActivation) return ["print(result.class_activation.values)"];
  if (reasons?.featureMaps) return ["print(result.feature_maps[0].values)"];
  return [];
}
