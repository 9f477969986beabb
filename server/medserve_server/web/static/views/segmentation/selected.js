// The selected object: enlarged, and with all its sizes.

import { element, replace } from "../../dom.js";
import { t } from "../../language.js";
import { definitions } from "../card.js";

const SIDE = 440; // pixels of the magnifier, which is shown at half of that

/**
 * Returns the panel; `show` shows an object, or none.
 * @param {import("./picture.js").Picture} shown
 * @param {import("./columns.js").Column[]} columns
 */
export function selectedObject(shown, columns) {
  const magnifier = element("canvas", {
    width: SIDE,
    height: SIDE,
    role: "img",
    "aria-label": t("segmentation.enlarged"),
    class: "segmentation-magnifier",
  });
  const values = element("div", { role: "status" });
  const node = element("section", { class: "card segmentation-selected", hidden: true }, magnifier, values);
  return {
    node,
    /** @param {import("./items.js").Item | null} item */
    show(item) {
      node.hidden = item === null;
      if (!item) return;
      void shown.enlarge(magnifier, item);
      const [, ...sizes] = columns;
      replace(
        values,
        element("h3", {}, t("segmentation.object", { id: item.id })),
        definitions(sizes.map(({ header, text, unit }) => [header, unit ? `${text(item)} ${unit}` : text(item)])),
      );
    },
  };
}
