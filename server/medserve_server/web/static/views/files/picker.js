// Choosing, dropping and pasting files.

import { element } from "../../dom.js";
import { t } from "../../language.js";

/** @typedef {{name: "PNG" | "JPEG" | "TIFF" | "DICOM" | "", contentType: string, shown: boolean}} Format */
/** @typedef {{file: File, format: Format}} Opened */

/** Formats by their first bytes; `shown` tells whether browsers display them. */
const SIGNATURES = [
  { name: "PNG", contentType: "image/png", shown: true, offset: 0, bytes: [[0x89, 0x50, 0x4e, 0x47]] },
  { name: "JPEG", contentType: "image/jpeg", shown: true, offset: 0, bytes: [[0xff, 0xd8, 0xff]] },
  {
    name: "TIFF",
    contentType: "image/tiff",
    shown: false,
    offset: 0,
    bytes: [
      [0x49, 0x49, 0x2a, 0x00],
      [0x4d, 0x4d, 0x00, 0x2a],
      [0x49, 0x49, 0x2b, 0x00],
      [0x4d, 0x4d, 0x00, 0x2b],
    ],
  },
  { name: "DICOM", contentType: "application/dicom", shown: false, offset: 128, bytes: [[0x44, 0x49, 0x43, 0x4d]] },
];
/** @type {Format} */
export const UNKNOWN = { name: "", contentType: "application/octet-stream", shown: false };
const ACCEPTED = ".png,.jpg,.jpeg,.tif,.tiff,.dcm,.dicom,image/png,image/jpeg,image/tiff,application/dicom";

/**
 * Returns the format of a file by its first bytes; UNKNOWN also for a file that cannot be read.
 * @param {Blob} file
 * @returns {Promise<Format>}
 */
export async function formatOf(file) {
  let head;
  try {
    head = new Uint8Array(await file.slice(0, 132).arrayBuffer());
  } catch (error) {
    if (error instanceof DOMException) return UNKNOWN;
    throw error;
  }
  const found = SIGNATURES.find(({ offset, bytes }) =>
    bytes.some((signature) => signature.every((byte, index) => head[offset + index] === byte)),
  );
  return /** @type {Format} */ (found ?? UNKNOWN);
}

/**
 * Returns the area with a button to choose files. Files can also be dropped and pasted anywhere on the page.
 * @param {(files: File[]) => void} onFiles
 * @param {AbortSignal} signal  ends dropping and pasting
 */
export function filePicker(onFiles, signal) {
  /** @param {FileList | undefined} files */
  const take = (files) => {
    if (files?.length) onFiles([...files]);
  };
  const input = element("input", {
    type: "file",
    id: "image-files",
    multiple: true,
    accept: ACCEPTED,
    class: "visually-hidden",
  });
  input.addEventListener("change", () => {
    take(input.files ?? undefined);
    input.value = ""; // so that the same file can be chosen again
  });
  const area = element(
    "div",
    { class: "drop no-print" },
    input,
    element("label", { for: "image-files", class: "button primary" }, t("files.choose")),
    element("p", {}, t("files.choose_hint")),
  );
  document.addEventListener("paste", (event) => take(event.clipboardData?.files), { signal });
  document.addEventListener(
    "dragover",
    (event) => {
      event.preventDefault();
      area.classList.add("over");
    },
    { signal },
  );
  document.addEventListener(
    "dragleave",
    (event) => {
      if (!event.relatedTarget) area.classList.remove("over");
    },
    { signal },
  );
  document.addEventListener(
    "drop",
    (event) => {
      event.preventDefault();
      area.classList.remove("over");
      take(event.dataTransfer?.files);
    },
    { signal },
  );
  return area;
}
