"""The command `medserve-train quantize`."""

import argparse

from rich.table import Table

from medserve_training.commands.arguments import count, source_of, version_folder
from medserve_training.commands.output import new_console


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parent: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser("quantize", parents=[parent], help="write a variant quantized to 8-bit integers")
    command.add_argument(
        "--output", type=version_folder, help="folder of the ONNX file (default: NAME-int8/1 next to NAME)"
    )
    command.add_argument(
        "--rows",
        type=count,
        default=512,
        help="number of training images, or crops of them, for calibration (default: 512)",
    )
    command.add_argument(
        "--max-loss",
        type=float,
        default=0.002,
        help="maximum decrease of AUROC, average precision or Dice coefficient on validation (default: 0.002)",
    )
    command.add_argument("--seed", type=int, default=0, help="seed of the choice of images (default: 0)")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from medserve_training.export.quantization.original import load_original
    from medserve_training.export.quantization.quantize import SERVER_DEVIATION, quantize

    source = load_original(source_of(options))
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
    console = new_console()
    console.print(table)
    if result.reference_deviation > SERVER_DEVIATION:
        console.print(
            f"The output for the reference rows changes by more than {SERVER_DEVIATION:g}: a server loads this file "
            "only with a larger --max-deviation. Try another --seed or more --rows.",
            style="yellow",
        )
    return 0
