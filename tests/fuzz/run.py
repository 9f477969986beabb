"""Feeds a target with inputs that reach new code: make fuzz ARGS='image -max_total_time=60'.

What follows the target goes to libFuzzer (-runs=N, -max_total_time=SECONDS, -seed=N). An input that breaks the target
is written to crash-*; put it into the target's corpus once it is fixed.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["medserve_images", "medserve_server", "PIL", "pydicom"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Runs one target until libFuzzer's limits or its first crash."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"usage: run.py {'|'.join(TARGETS)} [libFuzzer options]")
    target = sys.argv.pop(1)
    found = Path("build/fuzz") / target  # libFuzzer adds inputs that reached something new to the first folder
    found.mkdir(parents=True, exist_ok=True)
    atheris.Setup([*sys.argv, str(found), str(Path(__file__).parent / "corpus" / target)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
