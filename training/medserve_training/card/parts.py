"""What a card is made of. All text is plain: whatever writes the card escapes it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Points:
    """A list."""

    kind: ClassVar[str] = "points"
    texts: Sequence[str]


@dataclass(frozen=True)
class Command:
    """What to type."""

    kind: ClassVar[str] = "command"
    line: str


@dataclass(frozen=True)
class Picture:
    """A drawing and what it shows."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Drawings, side by side where there is room."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


Block = str | Table | Points | Command | Pictures


@dataclass(frozen=True)
class Section:
    """A part of the card under a title."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Card:
    """The whole."""

    title: str
    model: str
    warning: str
    sections: Sequence[Section]


def percent(part: float) -> str:
    """A part of 1, as "12.3 %"."""
    return f"{100 * part:.1f} %"


def interval(value: float, low: float, high: float) -> str:
    """A figure with its 95 % interval."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def to_markdown(card: Card) -> str:
    """The card as Markdown; drawings are named and left to the page."""
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
            return ["Drawn in [card.html](card.html):", "", *captions]
        case Table():
            lines = [_row(block.head), _row(["---"] * len(block.head), escaped=True), *map(_row, block.rows)]
            return [*lines, "", _escape(block.note)] if block.note else lines


def _row(cells: Sequence[str], *, escaped: bool = False) -> str:
    return "| " + " | ".join(cell if escaped else _escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", " ".join(text.split()))
