"""What the command reads and writes, and that nothing in it can act on the terminal."""

import errno
import io
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# Wide enough that a table in a pipe or a file is never wrapped.
_WIDTH_WITHOUT_TERMINAL = 500


def escape_what_cannot_be_written() -> None:
    """Makes standard output write a character that its encoding lacks as a backslash escape, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def read_file(name: str) -> bytes:
    """The content of a file; "-" is standard input.

    Raises:
        OSError: it can't be read.
    """
    if name != "-":
        return Path(name).read_bytes()
    if sys.stdin is None:  # closed by whoever started us
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read()


def output() -> Console:
    """The console for results: standard output, with neither markup nor guesses at colours."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(markup=False, highlight=False, emoji=False, width=width)


def printable(text: str) -> str:
    r"""The text with what is no character to print spelled out, e.g. an escape as `\x1b`.

    The bytes of a file's name that are not UTF-8, which Python has as surrogates, are told as `\xff`.
    """
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def cell(text: str, style: str = "") -> Text:
    """A text from a file or a server, for a table."""
    return Text(printable(text), style=style, overflow="fold")


def table(title: str, *columns: str, whole: Collection[str] = ()) -> Table:
    """An empty table; the columns in `whole` never break a line."""
    made = Table(title=cell(title, "bold"), title_justify="left")
    for column in columns:
        made.add_column(cell(column), no_wrap=column in whole)
    return made


def fits(table: Table, console: Console) -> bool:
    """Whether a table needs no more than the console's width to break no line."""
    roomy = console.options.update(max_width=_WIDTH_WITHOUT_TERMINAL)
    return console.measure(table, options=roomy).maximum <= console.width


def complain(message: str) -> None:
    """Writes a line to standard error."""
    print(printable(message), file=sys.stderr)  # noqa: T201 - this is where the command speaks


@contextmanager
def progress(name: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a bar on standard error, where that is a terminal; the function that it gives says what is done."""
    look = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not (shown and sys.stderr.isatty())
    # What goes to standard output, a file perhaps, would else go to the terminal, above the bar.
    with Progress(*look, console=Console(stderr=True), disable=hidden, transient=True, redirect_stdout=False) as bars:
        bar = bars.add_task("", total=total)
        yield lambda count: bars.advance(bar, count)
