"""Coverage-guided fuzzing of a target: make fuzz ARGS='image -max_total_time=60'.

Arguments after the target are passed to libFuzzer (-runs=N, -max_total_time=SECONDS, -seed=N). An input that crashes it
is written to crash-*; add it to the target's corpus once it is fixed.
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
    found = Path("build/fuzz") / target  # libFuzzer adds inputs with new coverage to the first folder
    found.mkdir(parents=True, exist_ok=True)
    atheris.Setup([*sys.argv, str(found), str(Path(__file__).parent / "corpus" / target)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
