"""Entry point of `medserve-train` and `python -m medserve_training`."""

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
"""Top-level modules that the extra `training` installs."""


def loaded() -> Callable[[], int]:
    """Imports and returns the command's main function; exits with status 2 if the extra is not installed."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.stderr.write(
            f"medserve-train: needs the extra training (not installed: {', '.join(missing)}): run "
            "pip install '.[training]' in a checkout of medserve, or 'FILE.whl[training]' with its wheel, "
            "under Python 3.11 to 3.13\n"
        )
        raise SystemExit(2)
    from medserve_training.commands.cli import main  # noqa: PLC0415 - imports the modules checked above

    return main


if __name__ == "__main__":
    sys.exit(loaded()())
