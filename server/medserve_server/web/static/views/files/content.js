// Reading the files that were chosen.

/** The file cannot be read any more, e.g. because it was changed or is a folder. */
export class UnreadableFile extends Error {}

/**
 * Checks that a file can be read: a request with a file that cannot be read fails like one without a connection.
 * @param {Blob} file
 * @throws {UnreadableFile}
 */
export async function checkReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch (error) {
    throw error instanceof DOMException ? new UnreadableFile(error.message) : error;
  }
}

/**
 * Returns the contents of a file as base64.
 * @param {Blob} file
 * @returns {Promise<string>}
 * @throws {UnreadableFile}
 */
export function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      const url = /** @type {string} */ (reader.result);
      resolve(url.slice(url.indexOf(",") + 1));
    });
    reader.addEventListener("error", () => reject(new UnreadableFile(reader.error?.message)));
    reader.readAsDataURL(file);
  });
}
