"""Runs the server, as `medserve-server` or `python -m medserve_server`."""

import sys
from collections.abc import Callable
from importlib.util import find_spec

NEEDED = ("onnxruntime", "orjson", "PIL", "prometheus_client", "pydantic", "uvicorn")
"""Top-level modules that the extras `server` and `cuda` install."""


def loaded() -> Callable[[], None]:
    """Returns the command's entry point.

    Raises:
        SystemExit: a required extra is not installed; the message names the missing modules.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.stderr.write(
            f"medserve-server: needs the extra server (not installed: {', '.join(missing)}): "
            "pip install '.[server]' in a checkout of medserve, or 'FILE.whl[server]' with its wheel; "
            "cuda instead of server for an NVIDIA GPU\n"
        )
        raise SystemExit(2)
    from medserve_server.process.cli import main  # noqa: PLC0415 - imports these modules

    return main


if __name__ == "__main__":
    loaded()()
