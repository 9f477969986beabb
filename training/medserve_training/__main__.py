"""Runs `medserve-train`, also as `python -m medserve_training`."""

import sys
from collections.abc import Callable
from importlib.util import find_spec

NEEDED = (
    "jinja2",
    "lightning_fabric",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pandas",
    "PIL",
    "pydantic",
    "pydicom",
    "scipy",
    "sklearn",
    "sksurv",
    "tomlkit",
    "torch",
)
"""Of the extra `training`."""


def loaded() -> Callable[[], int]:
    """Returns the command once it is imported; ends the process where the extra is missing."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.stderr.write(
            f"medserve-train: needs the extra training (not installed: {', '.join(missing)}): "
            "pip install '.[training]' in a checkout of medserve, or 'FILE.whl[training]' with its wheel; "
            "with Python 3.11 to 3.13\n"
        )
        raise SystemExit(2)
    from medserve_training.commands.cli import main  # noqa: PLC0415 - it needs them

    return main


if __name__ == "__main__":
    sys.exit(loaded()())
