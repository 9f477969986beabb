"""Occlusion and class activation maps, as colored numbers on a terminal."""

from collections.abc import Iterator

import numpy as np
from rich.text import Text

from medserve_client.cli import terminal
from medserve_client.results import ImageResult, ReasonMap

_MEANING = {
    "class_activation": "contribution of each cell to the score of {label}",
    "occlusion": "drop in the probability of {label} when each cell is covered",
}
_FOR, _AGAINST = np.array([214, 39, 40]), np.array([31, 119, 180])  # red, blue
_LEAST = 0.001  # the smallest value that the printed precision shows


def maps(result: ImageResult) -> Iterator[tuple[str, ReasonMap]]:
    """Yields the maps of a result, each with its kind."""
    for kind, one in (("class_activation", result.class_activation), ("occlusion", result.occlusion)):
        if one is not None:
            yield kind, one


def drawn(file: str, kind: str, one: ReasonMap) -> Text:
    """Renders a map: a title and a line for each row, red where it supports its label and blue where it opposes it."""
    text = terminal.cell(f"{file}, {kind.replace('_', ' ')}: {_MEANING[kind].format(label=one.label)}", "bold")
    text.append("\n")
    peak = max(float(np.abs(one.values).max()), _LEAST)
    for row in one.values.tolist():
        for value in row:
            color = _FOR if value > 0 else _AGAINST
            red, green, blue = (255 + (color - 255) * abs(value) / peak).astype(int).tolist()
            text.append(f" {value:+.3f} ", f"black on rgb({red},{green},{blue})")
        text.append("\n")
    return text
