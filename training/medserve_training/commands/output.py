"""Console output of the commands."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def new_console(*, stderr: bool = False) -> Console:
    """Returns a console without markup and emoji codes, which names of files, columns and labels may resemble."""
    return Console(stderr=stderr, markup=False, emoji=False)


def print_figures(console: Console, figures: Mapping[str, float], title: str) -> None:
    """Prints a table of figures."""
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
