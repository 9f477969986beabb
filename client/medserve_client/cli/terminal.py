"""Terminal input and output; text from files and servers cannot inject control sequences."""

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

# Wide enough that tables in a pipe or a file are never wrapped.
_WIDTH_WITHOUT_TERMINAL = 500


def escape_unencodable_characters() -> None:
    """Makes standard output escape characters that its encoding lacks with backslashes, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def read_file(name: str) -> bytes:
    """Returns the content of a file; "-" is standard input.

    Raises:
        OSError: it cannot be read.
    """
    if name != "-":
        return Path(name).read_bytes()
    if sys.stdin is None:  # closed by the parent process
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read()


def output() -> Console:
    """Returns the console for results: standard output, without markup, emoji or automatic highlighting."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(markup=False, highlight=False, emoji=False, width=width)


def printable(text: str) -> str:
    r"""Returns the text with non-printable characters escaped, e.g. ESC as `\x1b`.

    Bytes of a file name that are not UTF-8, which Python represents as surrogates, are escaped as e.g. `\xff`.
    """
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def cell(text: str, style: str = "") -> Text:
    """Returns untrusted text, from a file or a server, for a table cell."""
    return Text(printable(text), style=style, overflow="fold")


def table(title: str, *columns: str, whole: Collection[str] = ()) -> Table:
    """Returns an empty table; the columns in `whole` are never wrapped."""
    made = Table(title=cell(title, "bold"), title_justify="left")
    for column in columns:
        made.add_column(cell(column), no_wrap=column in whole)
    return made


def fits(table: Table, console: Console) -> bool:
    """Returns whether a table fits the console's width without wrapping."""
    roomy = console.options.update(max_width=_WIDTH_WITHOUT_TERMINAL)
    return console.measure(table, options=roomy).maximum <= console.width


def print_error(message: str) -> None:
    """Writes a line to standard error."""
    print(printable(message), file=sys.stderr)  # noqa: T201 - the command's error output


@contextmanager
def progress(name: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on standard error if it is a terminal; yields a function that advances the bar."""
    look = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not (shown and sys.stderr.isatty())
    # Otherwise rich would print standard output, which may be redirected to a file, above the bar on the terminal.
    with Progress(*look, console=Console(stderr=True), disable=hidden, transient=True, redirect_stdout=False) as bars:
        bar = bars.add_task("", total=total)
        yield lambda count: bars.advance(bar, count)
