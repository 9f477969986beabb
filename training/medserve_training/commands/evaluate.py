"""The command `medserve-train evaluate`."""

import argparse
from pathlib import Path

from medserve_training.commands.arguments import source_of
from medserve_training.commands.output import new_console, print_figures


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parent: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser("evaluate", parents=[parent], help="evaluate a model on its test split")
    command.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder for predictions and plots (default: runs)"
    )
    command.add_argument("--unfamiliar", metavar="SPEC", help="images of another kind, to test novelty detection with")
    command.add_argument(
        "--crossval", type=Path, metavar="FILE", help="risk.json of crossval, whose figures are added to the manifest"
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from medserve_training.export.manifest import read_manifest
    from medserve_training.studies.evaluate import evaluate

    folder = options.runs / read_manifest(options.model).name
    figures = evaluate(source_of(options), folder, options.unfamiliar, options.crossval)
    console = new_console()
    print_figures(console, figures, str(options.model))
    console.print(f"Predictions and plots are in {folder}/.")
    return 0
