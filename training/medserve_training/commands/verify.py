"""The command `medserve-train verify`."""

import argparse

from rich.table import Table
from rich.text import Text

from medserve_training.commands.arguments import source_of
from medserve_training.commands.output import new_console


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parent: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser("verify", parents=[parent], help="recompute a model's figures from its ONNX file")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from medserve_training.export.verify import TOLERANCE, verify

    comparisons = verify(source_of(options))
    table = Table("figure", "manifest", "recomputed", "", title=str(options.model))
    for entry in comparisons:
        stated, recomputed = (
            "absent" if value is None else f"{value:.7g}" for value in (entry.stated, entry.recomputed)
        )
        table.add_row(entry.name, stated, recomputed, Text("same", "green") if entry.agrees else Text("differs", "red"))
    console = new_console()
    console.print(table)
    wrong = [entry.name for entry in comparisons if not entry.agrees]
    if wrong:
        console.print(f"{len(wrong)} of {len(comparisons)} figures differ by more than {TOLERANCE:g}.", style="red")
        return 1
    console.print(f"All {len(comparisons)} figures are the same to within {TOLERANCE:g}.")
    return 0
