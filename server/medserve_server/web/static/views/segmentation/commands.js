// The request on screen as commands.

import { hasToken, modelPath } from "../../api.js";
import { clientProgram, commands, grpcTarget, shell } from "../../commands.js";

/** @typedef {import("./requests.js").Spacing} Spacing */
/** @typedef {{model: import("./requests.js").Model, name: string, frame: number, spacing: Spacing | null}} Request */

/**
 * Returns the element with the commands.
 * @param {import("./requests.js").Model} model
 * @param {import("./requests.js").Entry} entry  with a result
 */
export function segmentCommands(model, { file, format, resultFrame, result }) {
  const stated = result?.pixelSpacing;
  const spacing = stated?.source === "SOURCE_REQUEST" ? stated : null;
  const request = { model, name: file.name, frame: resultFrame, spacing };
  const path = modelPath(model, "segment");
  const plain = resultFrame === 0 && spacing === null;
  return commands({
    method: "POST",
    path,
    file: file.name,
    contentType: format.contentType,
    client: {
      medserve: medserve(request),
      python: python(request),
      ...(plain ? {} : { curl: curl(location.origin + path, request), node: node(location.origin + path, request) }),
    },
  });
}

/** @param {Request} request */
function medserve({ model, name, frame, spacing }) {
  return [
    `medserve segment ${shell(name)}`,
    `--server ${grpcTarget()}${location.protocol === "https:" ? " --tls" : ""}`,
    `--model ${shell(model.name)} --version ${shell(model.version)}`,
    ...(frame > 0 ? [`--frame ${frame}`] : []),
    ...(spacing ? [`--pixel-spacing ${spacing.rowMm},${spacing.columnMm}`] : []),
    "--objects objects.csv",
  ].join(" \\\n  ");
}

/**
 * Returns what follows the encoded file in the JSON of an image.
 * @param {Request} request
 */
function options({ frame, spacing }) {
  const pixelSpacing = spacing && { rowMm: spacing.rowMm, columnMm: spacing.columnMm };
  return { image: frame > 0 ? { frame } : {}, rest: pixelSpacing ? { pixelSpacing } : {} };
}

/**
 * @param {string} url
 * @param {Request} request
 */
function curl(url, request) {
  const { image, rest } = options(request);
  const [imageText, restText] = [image, rest].map((part) => JSON.stringify(part).slice(1, -1));
  const end = `"${imageText && `, ${imageText}`}}${restText && `, ${restText}`}}]}`;
  return [
    "{",
    `  printf %s '{"images": [{"image": {"encoded": "'`,
    `  base64 < ${shell(request.name)} | tr -d '\\n'`,
    `  printf %s ${shell(end)}`,
    `} | curl ${shell(url)} \\`,
    ...(hasToken() ? ['  -H "Authorization: Bearer $MEDSERVE_TOKEN" \\'] : []),
    "  -H 'Content-Type: application/json' \\",
    "  --data-binary @-",
  ].join("\n");
}

/**
 * @param {string} url
 * @param {Request} request
 */
function node(url, request) {
  const { image, rest } = options(request);
  const token = hasToken() ? ", Authorization: `Bearer ${process.env.MEDSERVE_TOKEN}`" : "";
  return [
    'const { readFile } = await import("node:fs/promises");',
    `const encoded = await readFile(${JSON.stringify(request.name)}, "base64");`,
    `const image = { image: { ...${JSON.stringify(image)}, encoded }, ...${JSON.stringify(rest)} };`,
    `const response = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    `  headers: { "Content-Type": "application/json"${token} },`,
    "  body: JSON.stringify({ images: [image] }),",
    "});",
    "console.log(JSON.stringify(await response.json(), null, 2));",
  ].join("\n");
}

/** @param {Request} request */
function python({ model, name, frame, spacing }) {
  const values = [
    JSON.stringify(name),
    `model=${JSON.stringify(model.name)}`,
    `version=${JSON.stringify(model.version)}`,
    ...(frame > 0 ? [`frame=${frame}`] : []),
    ...(spacing ? [`pixel_spacing=(${spacing.rowMm}, ${spacing.columnMm})`] : []),
  ];
  return clientProgram({
    names: [],
    call: ["response = client.segment(", ...values.map((value) => `    ${value},`), ")"],
    after: [
      "for found in response.results[0].labels:",
      "    print(found.label, found.count, found.area_px)",
      "    print([one.equivalent_diameter for one in found.objects])",
    ],
  });
}
