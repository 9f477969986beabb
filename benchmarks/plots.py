"""The plots of RESULTS.md."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.measure import Shape
from benchmarks.results import Results

OURS, THEIRS, LIMIT = "#1f77b4", "#b0b0b0", "#d62728"
STYLES = ("o-", "s-", "^--", "v--", "D--", "P--", "X--", "*--", "h--")


def plot(results: Results, folder: Path) -> None:
    """Writes serving_cpu.png and serving_throughput.png."""
    _bars(results, folder / "serving_cpu.png")
    _lines(results, folder / "serving_throughput.png")


def _bars(results: Results, path: Path) -> None:
    """Plots the server's CPU time per image, compared with ONNX Runtime alone."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for panel, shape in zip(panels, (Shape(1, 64), Shape(32, 4)), strict=True):
        found = [
            (name, value)
            for name in reversed(results.outcomes)
            if (value := results.figure(name, shape.label, "server_cpu")) is not None
        ]
        medians = [value.median for _, value in found]
        spread = [
            [value.median - value.least for _, value in found],
            [value.most - value.median for _, value in found],
        ]
        colors = [OURS if name.startswith("medserve") else THEIRS for name, _ in found]
        panel.barh([name for name, _ in found], medians, xerr=spread, color=colors, ecolor="#404040", capsize=2)
        # The bar of an outlier is cut off, to leave space for the others, and labeled with its value.
        limit = 1.3 * sorted(medians)[-2:][0]
        for place, (_, value) in enumerate(found):
            outside = value.most > limit * 0.93
            panel.text(
                limit * 0.99 if outside else value.most + limit * 0.015,
                place,
                f"{value.median:.0f}" + (" →" if outside else ""),
                va="center",
                ha="right" if outside else "left",
                fontsize=9,
            )
        ceiling = results.least_cpu(shape.rows)
        panel.axvline(ceiling, color=LIMIT, linewidth=1.5)
        panel.set_title(f"{shape.label}\nred: ONNX Runtime alone, {ceiling:.0f} µs", fontsize=10)
        panel.set_xlim(0, limit)
        panel.set_xlabel("CPU time of the server, µs per image")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _lines(results: Results, path: Path) -> None:
    """Plots unary throughput against the number of requests in flight."""
    figure, panel = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for style, name in zip(STYLES, results.outcomes, strict=False):
        points = [
            (in_flight, value.median)
            for in_flight in (1, 16, 64)
            if (value := results.figure(name, Shape(1, in_flight).label, "images_per_second")) is not None
        ]
        width = 2.5 if name.startswith("medserve") else 1.2
        panel.plot(*zip(*points, strict=True), style, label=name, linewidth=width, markersize=5)
    panel.set_xscale("log", base=2)
    panel.set_xticks([1, 16, 64], ["1", "16", "64"])
    panel.set_yscale("log")
    panel.set_xlabel("unary requests of one image in flight")
    panel.set_ylabel("images per second")
    panel.grid(which="both", color="#e6e6e6")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
