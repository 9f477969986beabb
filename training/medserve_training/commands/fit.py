"""The command `medserve-train fit`."""

import argparse
import shlex
from pathlib import Path

from medserve_training.commands.arguments import DATA_SPEC, count, version_folder
from medserve_training.commands.output import new_console, print_figures
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import load_recipe, recipe_names


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parent: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser("fit", parents=[parent], help="train a recipe and write its ONNX file")
    command.add_argument("recipe", help=f"{', '.join(recipe_names())}, or the path of a TOML file")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. training.epochs=3")
    command.add_argument("--data", metavar="SPEC", help=f"data to use instead of the recipe's: {DATA_SPEC}")
    command.add_argument("--output", type=version_folder, help="folder of the ONNX file (default: models/NAME/1)")
    command.add_argument("--runs", type=Path, default=Path("runs"), help="folder for metrics and plots (default: runs)")
    command.add_argument("--accelerator", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    command.add_argument("--devices", type=count, default=1, help="processes on each node (default: 1)")
    command.add_argument(
        "--nodes", type=count, default=1, help="number of nodes; run the same command on each (default: 1)"
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set, options.data)

    from lightning_fabric import Fabric

    from medserve_training.run_paths import RunPaths
    from medserve_training.training.fit import fit

    output = options.output or Path("models") / recipe.name / "1"
    paths = RunPaths(options.data_dir, output / "model.onnx", options.runs / recipe.name)
    try:
        fabric = Fabric(accelerator=options.accelerator, devices=options.devices, num_nodes=options.nodes)
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"--accelerator {options.accelerator}, --devices {options.devices}: {error}") from error
    fabric.launch()
    console = new_console()
    figures = fit(recipe, paths, fabric, console)
    if figures:
        print_figures(console, figures, recipe.manifest.title)
        console.print(f"Metrics and plots are in {paths.report}/.")
        folder = shlex.quote(str(output.parent.parent))
        console.print(f"Serve it with: medserve-server --models {folder}", highlight=False, soft_wrap=True)
    return 0
