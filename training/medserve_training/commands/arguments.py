"""Command-line arguments shared by several subcommands."""

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medserve_training.export.origin import Source

DATA_SPEC = (
    "medmnist:NAME, idx:FOLDER, digits, folder:PATH, nuclei:FILE, hc18:FILE, masks:FOLDER, gbsg or csv:FILE (with its "
    "schema next to it, FILE.toml)"
)


def data_folder() -> argparse.ArgumentParser:
    """Returns a parent parser with the argument `--data-dir`."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("MEDSERVE_DATA", "data")),
        help="folder of data files (default: $MEDSERVE_DATA, else ./data)",
    )
    return parent


def model_file() -> argparse.ArgumentParser:
    """Returns a parent parser with the arguments of a model file and its data; `source_of` reads them."""
    parent = argparse.ArgumentParser(add_help=False, parents=[data_folder()])
    parent.add_argument("model", type=Path, help="e.g. models/chest-xray/1/model.onnx")
    parent.add_argument("--data", metavar="SPEC", required=True, help=f"the data that its manifest names: {DATA_SPEC}")
    parent.add_argument("--recipe", help="the recipe it was trained with (default: that of the manifest)")
    return parent


def source_of(options: argparse.Namespace) -> "Source":
    """Returns the model file and the data from the arguments of `model_file`."""
    from medserve_training.export.origin import Source

    return Source(options.model, options.data, options.recipe, options.data_dir)


def count(text: str) -> int:
    """Argument type: an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def version_folder(text: str) -> Path:
    """Argument type: a folder NAME/VERSION in which a server finds a model."""
    path = Path(text)
    name, version = path.absolute().parts[-2:] if len(path.absolute().parts) > 2 else ("", "")
    if not (re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) and re.fullmatch(r"[1-9][0-9]{0,17}", version)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: a server would not find the model there; expected .../NAME/VERSION: a name of letters, digits, "
            "'.', '_' and '-', and a whole number from 1, as in models/chest-xray/2"
        )
    return path
