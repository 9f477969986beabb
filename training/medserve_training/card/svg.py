"""Figures as SVG inside a page: small, the same bytes each time, in the page's own colours."""

import io
import re
from collections.abc import Callable, Mapping

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from medserve_training.plots.style import COLORS, STYLE

_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def draw(build: Callable[[], Mapping[str, Figure]], name: str) -> dict[str, Markup]:
    """Draws figures that a function builds in the style of all plots; by their names, each an <svg> element.

    Args:
        build: Builds the figures.
        name: Told apart from all others on the page, since ids have to be.
    """
    drawn = {}
    with rc_context(STYLE | {"svg.fonttype": "none"}):
        for key, figure in build().items():
            with rc_context({"svg.hashsalt": f"{name} {key}"}):
                stream = io.StringIO()
                figure.savefig(stream, format="svg", transparent=True, metadata=_METADATA)
            drawn[key] = Markup(_shorten(stream.getvalue()))  # noqa: S704 - matplotlib escapes what it writes
    return drawn


def labelled(svg: Markup, caption: str) -> Markup:
    """The drawing with words for those who can't see it."""
    return svg.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(escape(caption)), 1)


def _shorten(text: str) -> str:
    text = text[text.index("<svg ") :]
    # Groups have ids that nothing refers to, and that other drawings on the page have too.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r"(font: [^'\";]*)'[^;\"]*", r"\1sans-serif", text)
    text = re.sub(r">\s+<", "><", text)
    # A hundredth of a point is less than a pixel.
    text = re.sub(r'(?<= d=)"[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path[0].split())), text)
    # Blue is too dark on a dark page: there the page has another.
    return text.replace("#000000", "currentColor").replace(COLORS[0].lower(), "var(--blue)")
