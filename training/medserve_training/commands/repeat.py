"""The command `medserve-train repeat`."""

import argparse
from pathlib import Path

from rich.table import Table

from medserve_training.commands.arguments import count
from medserve_training.commands.output import new_console
from medserve_training.recipes.recipe import load_recipe, recipe_names


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parent: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "repeat", parents=[parent], help="fit and evaluate a recipe with several random seeds"
    )
    command.add_argument("recipe", help=f"{', '.join(recipe_names())}, or the path of a TOML file")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. training.epochs=3")
    command.add_argument("--seeds", type=count, default=5, help="number of seeds, counted from 1 (default: 5)")
    command.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder for models and reports (default: runs)"
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set)

    from lightning_fabric import Fabric

    from medserve_training.run_paths import RunPaths
    from medserve_training.studies.repeat import repeat

    folder = options.runs / f"{recipe.name}-seeds"
    paths = RunPaths(options.data_dir, folder, folder)
    console = new_console()
    fabric = Fabric(accelerator="cpu", devices=1)
    spreads = repeat(options.recipe, options.set, options.seeds, paths, fabric, console)
    table = Table("figure", "mean", "standard deviation", title=f"{recipe.manifest.title}, {options.seeds} seeds")
    for name, (mean, deviation) in spreads.items():
        if not name.endswith((", low", ", high")):
            table.add_row(name, f"{mean:.4f}", f"{deviation:.4f}")
    console.print(table)
    console.print(f"The figures of every seed are in {folder}/seeds.json.")
    return 0
