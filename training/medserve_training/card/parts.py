"""Building blocks of a card, as plain text; the Markdown and HTML writers escape it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its header."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Points:
    """A bulleted list."""

    kind: ClassVar[str] = "points"
    texts: Sequence[str]


@dataclass(frozen=True)
class Command:
    """A shell command."""

    kind: ClassVar[str] = "command"
    line: str


@dataclass(frozen=True)
class Picture:
    """An SVG figure and its caption."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Figures, side by side where space permits."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


Block = str | Table | Points | Command | Pictures


@dataclass(frozen=True)
class Section:
    """A titled section of the card."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Card:
    """A complete model card."""

    title: str
    model: str
    warning: str
    sections: Sequence[Section]


def percent(part: float) -> str:
    """Formats a fraction as "12.3 %"."""
    return f"{100 * part:.1f} %"


def interval(value: float, low: float, high: float) -> str:
    """Formats a figure with its 95 % interval."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def to_markdown(card: Card) -> str:
    """Renders the card as Markdown, with the captions of figures only; the figures are on the HTML page."""
    lines = [f"# {_escape(card.title)}", "", _escape(card.model), "", f"**{_escape(card.warning)}**", ""]
    for section in card.sections:
        lines += [f"## {_escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_markdown(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(block: Block) -> list[str]:
    match block:
        case str():
            return [_escape(block)]
        case Points():
            return [f"- {_escape(text)}" for text in block.texts]
        case Command():
            return [f"    {' '.join(block.line.split())}"]
        case Pictures():
            captions = [f"- {_escape(picture.caption)}" for picture in block.pictures]
            return ["Figures in [card.html](card.html):", "", *captions]
        case Table():
            lines = [_row(block.head), _row(["---"] * len(block.head), escaped=True), *map(_row, block.rows)]
            return [*lines, "", _escape(block.note)] if block.note else lines


def _row(cells: Sequence[str], *, escaped: bool = False) -> str:
    return "| " + " | ".join(cell if escaped else _escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    """Joins the text into one line and escapes Markdown markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", " ".join(text.split()))
