// The frames of a file with several.

import { element, replace } from "../../dom.js";
import { t } from "../../language.js";

/**
 * Returns the slider over the frames of a file; null for a file of one frame.
 * @param {{frame: number, result: {frames: number} | null}} entry  with a result
 * @param {(frame: number) => void} onFrame
 */
export function frameSlider({ frame, result }, onFrame) {
  const frames = result?.frames ?? 1;
  if (frames < 2) return null;
  const position = element("output", { for: "image-frame" }, t("files.frame_of", { frame: frame + 1, frames }));
  const slider = element("input", { type: "range", id: "image-frame", min: 1, max: frames, value: frame + 1 });
  slider.addEventListener("input", () => {
    replace(position, t("files.frame_of", { frame: slider.value, frames }));
    onFrame(Number(slider.value) - 1);
  });
  return element(
    "div",
    { class: "files-frames" },
    element("label", { for: "image-frame" }, t("files.frame")),
    slider,
    position,
  );
}
