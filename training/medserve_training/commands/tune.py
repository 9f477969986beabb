"""The command `medserve-train tune`."""

import argparse
from pathlib import Path

from rich.table import Table

from medserve_training.commands.arguments import DATA_SPEC, count
from medserve_training.commands.output import new_console
from medserve_training.recipes.recipe import load_recipe, recipe_names


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parent: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "tune", parents=[parent], help="search for values of a recipe's keys that minimize the validation loss"
    )
    command.add_argument("recipe", help=f"{', '.join(recipe_names())}, or the path of a TOML file")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key that stays fixed")
    command.add_argument("--data", metavar="SPEC", help=f"data to use instead of the recipe's: {DATA_SPEC}")
    command.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="KEY=VALUES",
        help="low..high or a,b,c; e.g. training.learning_rate=1e-4..1e-2",
    )
    command.add_argument("--trials", type=count, default=20, help="number of training runs (default: 20)")
    command.add_argument("--grid", action="store_true", help="grid search over every combination instead")
    command.add_argument("--seed", type=int, default=0, help="seed of the search (default: 0)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the results and the best recipe")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set, options.data)

    from lightning_fabric import Fabric

    from medserve_training.studies.tune import Search, parse_space, tune

    space = parse_space(options.vary)
    search = Search(options.recipe, options.set, options.data, space, options.trials, options.grid, options.seed)
    folder = options.runs / f"{recipe.name}-tune"
    console = new_console()
    best = tune(search, options.data_dir, folder, Fabric(accelerator="cpu", devices=1), console)
    table = Table("key", "best", title=recipe.manifest.title)
    for key, value in best.items():
        table.add_row(key, str(value))
    console.print(table)
    console.print(f"All trials are in {folder}/trials.csv, the best recipe in {folder}/best.toml.")
    return 0
