"""The command `medserve-train crossval`."""

import argparse
from pathlib import Path

from medserve_training.commands.arguments import count
from medserve_training.commands.output import new_console
from medserve_training.recipes.recipe import load_recipe


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parent: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser("crossval", parents=[parent], help="cross-validate survival recipes and baselines")
    command.add_argument("recipes", nargs="+", metavar="RECIPE", help="the first is compared with the others")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set a key in every recipe")
    command.add_argument("--repeats", type=count, default=10, help="number of repetitions (default: 10)")
    command.add_argument("--folds", type=_folds, default=5, help="number of folds (default: 5)")
    command.add_argument("--jobs", type=count, default=2, help="number of parallel processes (default: 2)")
    command.add_argument("--external", action="store_true", help="also train on Rotterdam and test on GBSG")
    command.add_argument("--output", type=Path, default=Path("benchmarks"), help="report folder (default: benchmarks)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="folder for predictions (default: runs)")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from medserve_training.studies.crossval import Plan
    from medserve_training.studies.crossval_report import crossval

    recipes = [load_recipe(name, options.set) for name in options.recipes]
    plan = Plan(options.repeats, options.folds, options.jobs)
    console = new_console()
    crossval(recipes, plan, options.data_dir, options.output, options.runs, console, external=options.external)
    console.print(f"risk.json, risk.md and risk.png are in {options.output}/, predictions in {options.runs}/.")
    return 0


def _folds(text: str) -> int:
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"{text} is below 2")
    return number
