// The original next to the image as the model received it.

import { element, replace, svg } from "../../dom.js";
import { t } from "../../language.js";

/** @typedef {import("./view.js").Entry} Entry */

/**
 * Returns the pictures of a file, and the layer over the model's input for maps.
 * @param {Entry} entry  with a result
 * @param {import("./decision.js").Task | null} task
 */
export function pictures({ file, format, result }, task) {
  const layer = svg("g", {});
  const input = task?.input ?? { height: 1, width: 1, colorSpace: "" };
  const preview = element(
    "figure",
    {},
    svg(
      "svg",
      {
        viewBox: `0 0 ${input.width} ${input.height}`,
        class: "image-stage",
        role: "img",
        "aria-label": t("image.input_of", { name: file.name }),
      },
      svg("image", {
        href: `data:image/png;base64,${result?.previewPng}`,
        width: input.width,
        height: input.height,
        class: "pixelated",
      }),
      layer,
    ),
    element(
      "figcaption",
      {},
      t(input.colorSpace === "COLOR_SPACE_RGB" ? "image.input_rgb" : "image.input_gray", {
        width: input.width,
        height: input.height,
      }),
    ),
  );
  return { node: element("div", { class: "image-pictures" }, original(file, format), preview), layer };
}

/**
 * @param {File} file
 * @param {import("../files/picker.js").Format} format
 */
function original(file, format) {
  const caption = element("figcaption", {}, t("image.original"));
  const figure = element("figure", {});
  /** @param {string} text */
  const without = (text) => replace(figure, element("p", { class: "image-stage" }, text), caption);
  if (!format.shown) {
    without(t("image.not_shown", { format: format.name || t("image.unknown_format") }));
    return figure;
  }
  const url = URL.createObjectURL(file);
  const picture = element("img", { src: url, alt: t("image.original_of", { name: file.name }), class: "image-stage" });
  picture.addEventListener("load", () => {
    URL.revokeObjectURL(url);
    replace(caption, t("image.original_size", { width: picture.naturalWidth, height: picture.naturalHeight }));
  });
  picture.addEventListener("error", () => {
    URL.revokeObjectURL(url);
    without(t("image.not_displayable"));
  });
  replace(figure, picture, caption);
  return figure;
}
