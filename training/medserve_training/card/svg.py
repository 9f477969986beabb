"""Renders figures as compact, reproducible inline SVG in the colors of the page."""

import io
import re
from collections.abc import Callable, Mapping

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from medserve_training.plots.style import COLORS, STYLE

_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def draw(build: Callable[[], Mapping[str, Figure]], name: str) -> dict[str, Markup]:
    """Renders figures in the style of all plots and returns them by name, each as an <svg> element.

    Args:
        build: Builds the figures.
        name: Unique on the page; keeps the ids of elements unique.
    """
    drawn = {}
    with rc_context(STYLE | {"svg.fonttype": "none"}):
        for key, figure in build().items():
            with rc_context({"svg.hashsalt": f"{name} {key}"}):
                stream = io.StringIO()
                figure.savefig(stream, format="svg", transparent=True, metadata=_METADATA)
            drawn[key] = Markup(_shorten(stream.getvalue()))  # noqa: S704 - matplotlib escapes what it writes
    return drawn


def labeled(svg: Markup, caption: str) -> Markup:
    """Adds the caption to an <svg> element for screen readers (ARIA label)."""
    return svg.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(escape(caption)), 1)


def _shorten(text: str) -> str:
    text = text[text.index("<svg ") :]
    # The ids of groups are never referenced, and not unique among the figures of the page.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r"(font: [^'\";]*)'[^;\"]*", r"\1sans-serif", text)
    text = re.sub(r">\s+<", "><", text)
    # A hundredth of a point is less than a pixel.
    text = re.sub(r'(?<= d=)"[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path[0].split())), text)
    # The page substitutes a lighter blue in dark mode.
    return text.replace("#000000", "currentColor").replace(COLORS[0].lower(), "var(--blue)")
