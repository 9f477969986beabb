"""The command `medserve-train init`."""

import argparse
import shlex
from pathlib import Path

from medserve_training.commands.output import new_console


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "init", help="write a recipe, and for patients a schema, for your own data, with guesses marked"
    )
    command.add_argument(
        "data",
        type=Path,
        metavar="FILE.csv|FOLDER",
        help="patients, or a folder with one folder of images for each class",
    )
    command.add_argument("--time", metavar="COLUMN", help="column of the follow-up time (default: guessed)")
    command.add_argument("--event", metavar="COLUMN", help="column of the event indicator (default: guessed)")
    command.add_argument(
        "--event-value", metavar="VALUE", help="value of that column that means an event (default: guessed)"
    )
    command.add_argument(
        "--time-unit", choices=["days", "months", "years"], help="unit of the follow-up time (default: guessed)"
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from medserve_training.init.outcome import Flags
    from medserve_training.init.start import init
    from medserve_training.init.toml_text import MARK

    flags = Flags(options.time, options.event, options.event_value, options.time_unit)
    written = init(options.data, flags)
    console = new_console()
    here = Path.cwd()
    written = [path.relative_to(here) if path.is_relative_to(here) else path for path in written]
    for path in written:
        guesses = path.read_text(encoding="utf-8").count(MARK)
        text = f"{path}: check its {guesses} guesses, each marked with `{MARK.strip()}` on the line above it."
        console.print(text, highlight=False, soft_wrap=True)
    text = f"Then train with: medserve-train fit {shlex.quote(str(written[-1]))}"
    console.print(text, highlight=False, soft_wrap=True)
    return 0
