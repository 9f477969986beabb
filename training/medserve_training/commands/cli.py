"""The command `medserve-train`."""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medserve_proto.standard_options import add_standard_options
from medserve_training.errors import UserError
from medserve_training.export.origin import Source
from medserve_training.recipes.recipe import load_recipe, recipe_names

_EXIT_STATUS = """exit status:
  0    all is well
  1    the data, a file or an option has to be corrected, or a figure differs (verify); no file was written
  2    the command line is wrong
  130  interrupted; no unfinished file is left
  143  terminated; no unfinished file is left

repeat keeps the models of finished seeds, and goes on from there when it is started again."""

# Commands import what they need when they run: `verify` never loads PyTorch, and --help answers at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Of the command line; by default the process's own.

    Returns:
        The exit status; `medserve-train --help` lists them.

    Raises:
        SystemExit: After `--help`, or with 2 where the arguments are wrong.
    """
    parser = _parser()
    add_standard_options(parser)
    options = parser.parse_args(arguments)
    received: list[int] = []
    try:
        with _raising_on_signals(received):
            return int(options.run(options))
    except (Exception, KeyboardInterrupt) as error:
        if received:  # a library may have turned the handler's exception into another one
            _complain("interrupted" if received[0] == signal.SIGINT else "terminated")
            return 128 + received[0]
        if isinstance(error, UserError):
            _complain(str(error))
        elif isinstance(error, OSError):  # a full disk, a folder without permission
            _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        else:
            raise
        return 1


def _console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: names of files, columns and labels may look like markup or emoji codes."""
    return Console(stderr=stderr, markup=False, emoji=False)


def _complain(text: str) -> None:
    _console(stderr=True).print(f"medserve-train: {text}", style="red", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _raising_on_signals(received: list[int]) -> Iterator[None]:
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt, so that what is half written is removed, and notes them.

    A signal that is ignored, as SIGINT is in a shell's background jobs, stays so.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medserve-train",
        description="Data in, one self-contained ONNX file out.",
        epilog=_EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("MEDSERVE_DATA", "data")),
        help="folder of MedMNIST's .npz files (default: $MEDSERVE_DATA, else ./data)",
    )
    spec = "medmnist:NAME, idx:FOLDER, digits, folder:PATH, gbsg or csv:FILE (its schema beside it, as FILE.toml)"

    _add_init(commands)

    fit = commands.add_parser("fit", parents=[data], help="train a recipe and write its ONNX file")
    fit.add_argument("recipe", help=f"{', '.join(recipe_names())}, or the path of a TOML file")
    fit.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. training.epochs=3")
    fit.add_argument("--data", metavar="SPEC", help=f"other data than the recipe's: {spec}")
    fit.add_argument("--output", type=_version_folder, help="folder of the ONNX file (default: models/NAME/1)")
    fit.add_argument("--runs", type=Path, default=Path("runs"), help="folder for metrics and plots (default: runs)")
    fit.add_argument("--accelerator", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    fit.add_argument("--devices", type=_count, default=1, help="processes on each node (default: 1)")
    fit.add_argument("--nodes", type=_count, default=1, help="number of nodes, each started alike (default: 1)")
    fit.set_defaults(run=_fit)

    repeat = commands.add_parser("repeat", parents=[data], help="fit and evaluate a recipe with several seeds")
    repeat.add_argument("recipe", help=f"{', '.join(recipe_names())}, or the path of a TOML file")
    repeat.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. training.epochs=3")
    repeat.add_argument("--seeds", type=_count, default=5, help="the seeds 1 to this (default: 5)")
    repeat.add_argument("--runs", type=Path, default=Path("runs"), help="folder for models and reports (default: runs)")
    repeat.set_defaults(run=_repeat)

    tune = commands.add_parser("tune", parents=[data], help="search over a recipe's keys, by the loss on validation")
    tune.add_argument("recipe", help=f"{', '.join(recipe_names())}, or the path of a TOML file")
    tune.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key that stays fixed")
    tune.add_argument("--data", metavar="SPEC", help=f"other data than the recipe's: {spec}")
    tune.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="KEY=VALUES",
        help="low..high or a,b,c; e.g. training.learning_rate=1e-4..1e-2",
    )
    tune.add_argument("--trials", type=_count, default=20, help="number of trainings (default: 20)")
    tune.add_argument("--grid", action="store_true", help="try every combination instead")
    tune.add_argument("--seed", type=int, default=0, help="of the search (default: 0)")
    tune.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the table and the best recipe")
    tune.set_defaults(run=_tune)

    file = argparse.ArgumentParser(add_help=False, parents=[data])
    file.add_argument("model", type=Path, help="e.g. models/chest-xray/1/model.onnx")
    file.add_argument("--data", metavar="SPEC", required=True, help=f"the data of its manifest: {spec}")
    file.add_argument("--recipe", help="the recipe it was trained with (default: the manifest's)")

    evaluate = commands.add_parser("evaluate", parents=[file], help="put a model's figures on its test split into it")
    evaluate.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder for predictions and plots (default: runs)"
    )
    evaluate.add_argument(
        "--unfamiliar", metavar="SPEC", help="pictures that are none of the model's, to try novelty on"
    )
    evaluate.add_argument(
        "--crossval", type=Path, metavar="FILE", help="risk.json of crossval, to put its figures into the manifest"
    )
    evaluate.set_defaults(run=_evaluate)

    verify = commands.add_parser("verify", parents=[file], help="recompute a model's figures from its ONNX file")
    verify.set_defaults(run=_verify)

    quantize = commands.add_parser("quantize", parents=[file], help="write a variant that computes in 8-bit integers")
    quantize.add_argument(
        "--output", type=_version_folder, help="folder of the ONNX file (default: NAME-int8/1 beside NAME/1)"
    )
    quantize.add_argument("--rows", type=_count, default=512, help="training pictures to calibrate on (default: 512)")
    quantize.add_argument(
        "--max-loss",
        type=float,
        default=0.002,
        help="refuse where the AUROC on validation falls by more (default: 0.002)",
    )
    quantize.add_argument("--seed", type=int, default=0, help="decides which pictures (default: 0)")
    quantize.set_defaults(run=_quantize)

    _add_studies(commands, data)
    return parser


def _add_init(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    init = commands.add_parser("init", help="write a recipe for your own data, and a schema, with its guesses marked")
    init.add_argument(
        "data", type=Path, metavar="FILE.csv|FOLDER", help="patients, or a folder of images for each class"
    )
    init.add_argument("--time", metavar="COLUMN", help="the follow-up time (default: guessed)")
    init.add_argument("--event", metavar="COLUMN", help="whether the event was seen (default: guessed)")
    init.add_argument("--event-value", metavar="VALUE", help="the cell that says that it was (default: guessed)")
    init.add_argument(
        "--time-unit", choices=["days", "months", "years"], help="of the follow-up time (default: guessed)"
    )
    init.set_defaults(run=_init)


def _add_studies(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", data: argparse.ArgumentParser
) -> None:
    crossval = commands.add_parser("crossval", parents=[data], help="cross-validate survival recipes beside baselines")
    crossval.add_argument("recipes", nargs="+", metavar="RECIPE", help="the first is compared with the others")
    crossval.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in every recipe")
    crossval.add_argument("--repeats", type=_count, default=10, help="how often (default: 10)")
    crossval.add_argument("--folds", type=_folds, default=5, help="into how many parts (default: 5)")
    crossval.add_argument("--jobs", type=_count, default=2, help="processes at a time (default: 2)")
    crossval.add_argument("--external", action="store_true", help="also train on Rotterdam and test on GBSG")
    crossval.add_argument("--output", type=Path, default=Path("benchmarks"), help="folder (default: benchmarks)")
    crossval.add_argument("--runs", type=Path, default=Path("runs"), help="folder for predictions (default: runs)")
    crossval.set_defaults(run=_crossval)

    article = commands.add_parser("article-risk", help="repeat the articles' risk result over many random splits")
    article.add_argument("--splits", type=_count, default=200, help="number of random splits (default: 200)")
    article.add_argument("--output", type=Path, default=Path("benchmarks"), help="folder (default: benchmarks)")
    article.set_defaults(run=_article_risk)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _version_folder(text: str) -> Path:
    """Takes a folder in which a server would find a model."""
    path = Path(text)
    name, version = path.absolute().parts[-2:] if len(path.absolute().parts) > 2 else ("", "")
    if not (re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) and re.fullmatch(r"[1-9][0-9]{0,17}", version)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: no server would find the model there; expected .../NAME/VERSION: a name of letters, digits, "
            "'.', '_' and '-', and a whole number from 1, as in models/chest-xray/2"
        )
    return path


def _folds(text: str) -> int:
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"{text} is below 2")
    return number


def _init(options: argparse.Namespace) -> int:
    from medserve_training.init.outcome import Flags  # noqa: PLC0415
    from medserve_training.init.start import init  # noqa: PLC0415
    from medserve_training.init.toml_text import MARK  # noqa: PLC0415

    flags = Flags(options.time, options.event, options.event_value, options.time_unit)
    written = init(options.data, flags)
    console = _console()
    here = Path.cwd()
    written = [path.relative_to(here) if path.is_relative_to(here) else path for path in written]
    for path in written:
        guesses = path.read_text(encoding="utf-8").count(MARK)
        text = f"{path}: check its {guesses} guesses, each marked by `{MARK.strip()}` in the line above it."
        console.print(text, highlight=False, soft_wrap=True)
    text = f"Then train with: medserve-train fit {shlex.quote(str(written[-1]))}"
    console.print(text, highlight=False, soft_wrap=True)
    return 0


def _fit(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set, options.data)

    from lightning_fabric import Fabric  # noqa: PLC0415

    from medserve_training.run_paths import RunPaths  # noqa: PLC0415
    from medserve_training.training.fit import fit  # noqa: PLC0415

    output = options.output or Path("models") / recipe.name / "1"
    paths = RunPaths(options.data_dir, output / "model.onnx", options.runs / recipe.name)
    try:
        fabric = Fabric(accelerator=options.accelerator, devices=options.devices, num_nodes=options.nodes)
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"--accelerator {options.accelerator}, --devices {options.devices}: {error}") from error
    fabric.launch()
    console = _console()
    figures = fit(recipe, paths, fabric, console)
    if figures:
        _print_figures(console, figures, recipe.manifest.title)
        console.print(f"Metrics and plots are in {paths.report}/.")
        folder = shlex.quote(str(output.parent.parent))
        console.print(f"Serve it with: medserve-server --models {folder}", highlight=False, soft_wrap=True)
    return 0


def _print_figures(console: Console, figures: Mapping[str, float], title: str) -> None:
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)


def _repeat(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set)

    from lightning_fabric import Fabric  # noqa: PLC0415

    from medserve_training.run_paths import RunPaths  # noqa: PLC0415
    from medserve_training.studies.repeat import repeat  # noqa: PLC0415

    folder = options.runs / f"{recipe.name}-seeds"
    paths = RunPaths(options.data_dir, folder, folder)
    console = _console()
    fabric = Fabric(accelerator="cpu", devices=1)
    spreads = repeat(options.recipe, options.set, options.seeds, paths, fabric, console)
    table = Table("figure", "mean", "standard deviation", title=f"{recipe.manifest.title}, {options.seeds} seeds")
    for name, (mean, deviation) in spreads.items():
        if not name.endswith((", low", ", high")):
            table.add_row(name, f"{mean:.4f}", f"{deviation:.4f}")
    console.print(table)
    console.print(f"Every seed's figures are in {folder}/seeds.json.")
    return 0


def _tune(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set, options.data)

    from lightning_fabric import Fabric  # noqa: PLC0415

    from medserve_training.studies.tune import Search, parse_space, tune  # noqa: PLC0415

    space = parse_space(options.vary)
    search = Search(options.recipe, options.set, options.data, space, options.trials, options.grid, options.seed)
    folder = options.runs / f"{recipe.name}-tune"
    console = _console()
    best = tune(search, options.data_dir, folder, Fabric(accelerator="cpu", devices=1), console)
    table = Table("key", "best", title=recipe.manifest.title)
    for key, value in best.items():
        table.add_row(key, str(value))
    console.print(table)
    console.print(f"All trials are in {folder}/trials.csv, the recipe in {folder}/best.toml.")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from medserve_training.export.manifest import read_manifest  # noqa: PLC0415
    from medserve_training.studies.evaluate import evaluate  # noqa: PLC0415

    folder = options.runs / read_manifest(options.model).name
    figures = evaluate(_source(options), folder, options.unfamiliar, options.crossval)
    console = _console()
    _print_figures(console, figures, str(options.model))
    console.print(f"Predictions and plots are in {folder}/.")
    return 0


def _source(options: argparse.Namespace) -> Source:
    return Source(options.model, options.data, options.recipe, options.data_dir)


def _verify(options: argparse.Namespace) -> int:
    from medserve_training.export.verify import TOLERANCE, verify  # noqa: PLC0415

    comparisons = verify(_source(options))
    table = Table("figure", "manifest", "recomputed", "", title=str(options.model))
    for entry in comparisons:
        stated, recomputed = (
            "absent" if value is None else f"{value:.7g}" for value in (entry.stated, entry.recomputed)
        )
        table.add_row(entry.name, stated, recomputed, Text("same", "green") if entry.agrees else Text("differs", "red"))
    console = _console()
    console.print(table)
    wrong = [entry.name for entry in comparisons if not entry.agrees]
    if wrong:
        console.print(f"{len(wrong)} of {len(comparisons)} figures differ by more than {TOLERANCE:g}.", style="red")
        return 1
    console.print(f"All {len(comparisons)} figures are the same to within {TOLERANCE:g}.")
    return 0


def _quantize(options: argparse.Namespace) -> int:
    from medserve_training.export.quantize import SERVER_DEVIATION, load_original, quantize  # noqa: PLC0415

    source = load_original(_source(options))
    folder = options.output or options.model.resolve().parent.parent.parent / f"{source.manifest.name}-int8" / "1"
    path = folder / "model.onnx"
    result = quantize(source, path, options.rows, options.max_loss, options.seed)
    found = result.quantization
    table = Table("figure", "value", title=str(path))
    table.add_row(f"{found.metric} on validation, before", f"{found.metric_before:.5f}")
    table.add_row(f"{found.metric} on validation, after", f"{found.metric_after:.5f}")
    table.add_row("largest change of a probability on validation", f"{found.max_deviation:.4f}")
    table.add_row("largest change of a probability on the reference rows", f"{result.reference_deviation:.4f}")
    for size, speedup in result.speedups.items():
        table.add_row(f"speed-up at batch {size}, one core", f"{speedup:.2f}")
    console = _console()
    console.print(table)
    if result.reference_deviation > SERVER_DEVIATION:
        console.print(
            f"The reference rows change by more than {SERVER_DEVIATION:g}: a server takes this file only with "
            "a larger --max-deviation than that. Another --seed or more --rows may do better.",
            style="yellow",
        )
    return 0


def _crossval(options: argparse.Namespace) -> int:
    from medserve_training.studies.crossval import Plan  # noqa: PLC0415
    from medserve_training.studies.crossval_report import crossval  # noqa: PLC0415

    recipes = [load_recipe(name, options.set) for name in options.recipes]
    plan = Plan(options.repeats, options.folds, options.jobs)
    console = _console()
    crossval(recipes, plan, options.data_dir, options.output, options.runs, console, external=options.external)
    console.print(f"risk.json, risk.md and risk.png are in {options.output}/, predictions in {options.runs}/.")
    return 0


def _article_risk(options: argparse.Namespace) -> int:
    from medserve_training.studies.article_risk import article_risk  # noqa: PLC0415

    article_risk(options.splits, options.output, _console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
