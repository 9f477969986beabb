"""The command `medserve-train article-risk`."""

import argparse
from pathlib import Path

from medserve_training.commands.arguments import count
from medserve_training.commands.output import new_console


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the parser."""
    command = commands.add_parser("article-risk", help="repeat the articles' risk experiment over random splits")
    command.add_argument("--splits", type=count, default=200, help="number of random splits (default: 200)")
    command.add_argument("--output", type=Path, default=Path("benchmarks"), help="report folder (default: benchmarks)")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from medserve_training.studies.article_risk import article_risk

    article_risk(options.splits, options.output, new_console())
    return 0
