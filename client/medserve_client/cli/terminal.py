"""What the command writes, and that nothing in it can act on the terminal."""

import sys
from collections.abc import Collection

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Wide enough that a table in a pipe or a file is never wrapped.
_WIDTH_WITHOUT_TERMINAL = 500


def output() -> Console:
    """The console for results: standard output, with neither markup nor guesses at colours."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(markup=False, highlight=False, emoji=False, width=width)


def printable(text: str) -> str:
    r"""The text with every control character spelt out, e.g. an escape as `\x1b`."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def cell(text: str, style: str = "") -> Text:
    """A text from a file or a server, for a table."""
    return Text(printable(text), style=style, overflow="fold")


def table(title: str, *columns: str, whole: Collection[str] = ()) -> Table:
    """An empty table; the columns in `whole` never break a line."""
    made = Table(title=cell(title, "bold"), title_justify="left")
    for column in columns:
        made.add_column(cell(column), no_wrap=column in whole)
    return made


def complain(message: str) -> None:
    """Writes a line to standard error."""
    print(printable(message), file=sys.stderr)  # noqa: T201 - this is where the command speaks
