// Masks of objects, which the server sends as compressed run-lengths as in COCO.

const FIRST = 48; // code of the character for 0

/**
 * Returns the lengths of the runs of pixels in turn outside and inside of an object, in column-major order. Each number
 * consists of characters with 5 bits, lowest first, and one bit that tells whether another follows; from the fourth on,
 * it is the difference from the number two before.
 * @param {string} text
 */
export function runLengths(text) {
  /** @type {number[]} */
  const lengths = [];
  let [value, shift] = [0, 0];
  for (let at = 0; at < text.length; at++) {
    const bits = text.charCodeAt(at) - FIRST;
    value |= (bits & 31) << shift;
    shift += 5;
    if (bits & 32) continue;
    if (bits & 16) value |= -1 << shift; // negative
    lengths.push(lengths.length > 2 ? value + lengths[lengths.length - 2] : value);
    [value, shift] = [0, 0];
  }
  return lengths;
}

/**
 * Sets the color of every pixel of an object whose row and column are multiples of a step.
 * @param {ImageData} sheet  the image divided by the step
 * @param {string} text  run-lengths of the object
 * @param {number[]} color  red, green, blue and opacity
 * @param {number} height  of the image
 * @param {number} step
 */
export function paint(sheet, text, color, height, step) {
  let start = 0;
  runLengths(text).forEach((length, index) => {
    const end = start + length;
    for (let at = start; index % 2 && at < end; at++) {
      const [x, y] = [Math.floor(at / height), at % height];
      if (x % step === 0 && y % step === 0) sheet.data.set(color, 4 * ((y / step) * sheet.width + x / step));
    }
    start = end;
  });
}
