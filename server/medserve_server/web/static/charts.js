/** Charts as SVG. They adapt to any width: positions are percentages, and only lines and areas are scaled. */

import { svg } from "./dom.js";
import { number } from "./language.js";

const ROW = 40;
const PLOT_HEIGHT = 200;

/**
 * Returns horizontal bars, one below the other, each with its label and value. If a value is negative, the bars start
 * from the middle.
 *
 * @param {object} chart
 * @param {{label: string, value: number, spread?: number, highlighted?: boolean}[]} chart.items `spread` is drawn as a
 *     whisker in both directions
 * @param {number} chart.max value of a bar over the full length
 * @param {(value: number) => string} chart.format
 * @param {string} chart.label name for screen readers
 * @returns {SVGSVGElement}
 */
export function bars({ items, max, format, label }) {
  const low = items.some(({ value }) => value < 0) ? -max : 0;
  const at = (/** @type {number} */ value) => clamped(((value - low) / (max - low || 1)) * 100);
  const rows = items.map(({ label: name, value, spread = 0, highlighted }, index) => {
    const [left, right] = [at(Math.min(0, value)), at(Math.max(0, value))];
    const top = index * ROW;
    return svg(
      "g",
      { class: highlighted ? "bar highlighted" : "bar" },
      svg("text", { x: 0, y: top + 14 }, name),
      svg("text", { x: "100%", y: top + 14, class: "value" }, spread ? `${format(value)} ± ${format(spread)}` : format(value)),
      svg("rect", { class: "track", x: 0, y: top + 21, width: "100%", height: 10, rx: 3 }),
      svg("rect", { class: "fill", x: `${left}%`, y: top + 21, width: `${right - left}%`, height: 10, rx: 3 }),
      spread
        ? svg("line", { class: "whisker", x1: `${at(value - spread)}%`, x2: `${at(value + spread)}%`, y1: top + 26, y2: top + 26 })
        : null,
      low < 0 ? svg("line", { class: "zero", x1: "50%", x2: "50%", y1: top + 18, y2: top + 34 }) : null,
    );
  });
  const described = items.map((item) => `${item.label}: ${format(item.value)}`).join("; ");
  return svg(
    "svg",
    { class: "chart bars", role: "img", "aria-label": `${label}. ${described}`, width: "100%", height: items.length * ROW },
    ...rows,
  );
}

/**
 * Returns a line chart whose vertical axis starts at 0.
 *
 * @param {object} chart
 * @param {number[]} chart.x ascending
 * @param {{label: string, y: number[]}[]} chart.series a value that is not finite interrupts the line
 * @param {string} chart.xLabel
 * @param {string} chart.yLabel
 * @param {number} chart.yMax
 * @param {(value: number) => string} chart.format format of the values on the vertical axis
 * @param {number} [chart.marker] where to draw a vertical line
 * @returns {SVGSVGElement}
 */
export function line({ x, series, xLabel, yLabel, yMax, format, marker }) {
  const [first, last] = [x[0] ?? 0, x[x.length - 1] ?? 1];
  const atX = (/** @type {number} */ value) => ((value - first) / (last - first || 1)) * 100;
  const atY = (/** @type {number} */ value) => 100 - clamped((value / (yMax || 1)) * 100);
  const drawing = svg(
    "svg",
    { viewBox: "0 0 100 100", preserveAspectRatio: "none", width: "100%", height: "100%" },
    ...series.map(({ y }, index) => svg("path", { class: `line series-${index}`, d: path(x, y, atX, atY) })),
  );
  const grid = ticks(0, yMax, 4).flatMap((value) => [
    svg("line", { class: "grid", x1: 0, x2: "100%", y1: `${atY(value)}%`, y2: `${atY(value)}%` }),
    svg("text", { class: "y-tick", x: -6, y: `${atY(value)}%`, dy: "0.32em" }, format(value)),
  ]);
  const below = ticks(first, last, 5).map((value) =>
    svg("text", { class: "x-tick", x: `${atX(value)}%`, y: "100%", dy: 18 }, number(value)),
  );
  const marked =
    marker === undefined
      ? null
      : svg("line", { class: "marker", x1: `${atX(marker)}%`, x2: `${atX(marker)}%`, y1: 0, y2: "100%" });
  const legend = series.length > 1 ? series.map(legendEntry) : [];
  const top = 22;
  const legendTop = top + PLOT_HEIGHT + 46;
  const names = series.map(({ label }) => label).join(", ");
  return svg(
    "svg",
    {
      class: "chart",
      role: "img",
      "aria-label": `${yLabel}; ${xLabel}; ${names}`,
      width: "100%",
      height: legendTop + legend.length * 20,
    },
    svg("text", { x: 0, y: 12, class: "axis" }, yLabel),
    svg(
      "svg",
      { class: "plot", x: "13%", y: top, width: "84%", height: PLOT_HEIGHT },
      ...grid,
      ...below,
      drawing,
      marked,
    ),
    svg("text", { x: "97%", y: top + PLOT_HEIGHT + 38, class: "axis end" }, xLabel),
    svg("svg", { y: legendTop }, ...legend),
  );
}

/**
 * Returns at most about `count` round numbers from `low` to `high`.
 *
 * @param {number} low
 * @param {number} high
 * @param {number} count
 */
export function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((width) => span / width <= count) ?? 10 * power;
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high + step * 1e-9; index++) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

/**
 * @param {{label: string}} series
 * @param {number} index
 */
function legendEntry({ label }, index) {
  const y = index * 20 + 10;
  return svg(
    "g",
    {},
    svg("line", { class: `line series-${index}`, x1: 2, x2: 26, y1: y, y2: y }),
    svg("text", { x: 34, y, dy: "0.32em" }, label),
  );
}

/**
 * @param {number[]} x
 * @param {number[]} y
 * @param {(value: number) => number} atX
 * @param {(value: number) => number} atY
 */
function path(x, y, atX, atY) {
  let drawing = false;
  const parts = x.map((value, index) => {
    if (!Number.isFinite(y[index])) {
      drawing = false;
      return "";
    }
    const command = drawing ? "L" : "M";
    drawing = true;
    return `${command}${atX(value).toFixed(3)} ${atY(y[index]).toFixed(3)}`;
  });
  return parts.join("");
}

/** @param {number} percent */
function clamped(percent) {
  return Math.min(100, Math.max(0, percent));
}
