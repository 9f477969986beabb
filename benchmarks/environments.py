"""Builds each peer's environment, `.venv-bench-NAME`: `python -m benchmarks.environments [NAME ...]`.

If a peer cannot be installed, the reason is saved, and `serving.py` reports it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.servers import PEER_SERVERS, PEERS, peer_environment

TIMEOUT = 900


def build(name: str) -> str | None:
    """Installs a peer unless it is already installed from the same requirements; returns the reason of a failure."""
    folder = peer_environment(name)
    wanted = (PEERS / name / "requirements.txt").read_text()
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return None
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=TIMEOUT)  # noqa: S603
        subprocess.run(  # noqa: S603
            [*pip, "--requirement", str(PEERS / name / "requirements.txt")],
            check=True,
            timeout=TIMEOUT,
            stderr=subprocess.PIPE,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return _failed(folder, f"was not installed within {TIMEOUT} s")
    except subprocess.CalledProcessError as error:
        lines = [line for line in str(error.stderr).splitlines() if "ERROR" in line]
        return _failed(folder, lines[0] if lines else str(error))
    stamp.write_text(wanted)
    return None


def missing(name: str) -> str | None:
    """Returns why a peer is not installed; None if it is."""
    folder = peer_environment(name)
    if (folder / "installed").is_file():
        return None
    reason = folder / "reason"
    return reason.read_text() if reason.is_file() else "not installed: python -m benchmarks.environments"


def _failed(folder: Path, reason: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "reason").write_text(reason)
    return reason


def main() -> None:
    """Builds the environments of the named peers, or of all."""
    names = list(dict.fromkeys(server.peer for server in PEER_SERVERS))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    for name in parser.parse_args().names or names:
        sys.stdout.write(f"{name}: {build(name) or 'ready'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
