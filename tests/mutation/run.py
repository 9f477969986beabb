"""Runs mutation tests of the engine and of access control: makes small changes to the code, and lists undetected ones.

mutmut derives module names from paths below `src`, so it runs on a copy of the packages with this layout.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "build" / "mutation"
PACKAGES = ("medserve_server", "medserve_images")
MUTATED = ("src/medserve_server/engine/*", "src/medserve_server/security/*")
TESTS = ("tests/unit/server/engine", "tests/unit/server/security")

CONFIGURATION = f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = {list(MUTATED)}
pytest_add_cli_args = ["-m", "not process", "-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {list(TESTS)}
also_copy = ["models"]
# The engine has threads, so that a process that ran its tests must not be forked.
process_isolation = "forkserver"
use_git_change_detection = false
"""


def main() -> int:
    """Runs mutmut on a copy in build/mutation, prints the undetected changes and returns mutmut's exit status.

    The results of unchanged functions are kept between runs. The command line may name the functions to change, e.g.
    "medserve_server.engine.plan*"; by default, all of them.
    """
    for package in PACKAGES:
        _copy(REPOSITORY / "server" / package, FOLDER / "src" / package)
    for name in ("tests", "models"):
        _copy(REPOSITORY / name, FOLDER / name)
    pyproject = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (FOLDER / "pyproject.toml").write_text(pyproject + CONFIGURATION, encoding="utf-8")
    status = _mutmut("run", *sys.argv[1:]).returncode
    _print_results(_mutmut("results", "--all", "true", stdout=subprocess.PIPE).stdout)
    return status


def _mutmut(*arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mutmut", *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=FOLDER, env=environment, stdout=stdout, text=True, check=False)


def _print_results(lines: str) -> None:
    """Prints the changes that were not detected, and for each module how many of the tested changes were."""
    tested: Counter[str] = Counter()
    detected: Counter[str] = Counter()
    for name, outcome in (line.strip().split(": ") for line in lines.splitlines() if line.strip()):
        if outcome == "not checked":
            continue
        module = name.partition(".x")[0]
        tested[module] += 1
        if outcome in {"killed", "timeout", "caught by type check"}:
            detected[module] += 1
        else:
            print(f"{name}: {outcome}")  # noqa: T201 - the report of this command
    for module, count in tested.items():
        print(f"{module}: {detected[module]} of {count} changes were detected")  # noqa: T201


def _copy(source: Path, target: Path) -> None:
    """Replaces a folder by a copy that keeps modification times, by which mutmut detects changes."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))


if __name__ == "__main__":
    raise SystemExit(main())
