"""The fuzz targets on their saved inputs, and for a few seconds on new ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, corpus
from waiting import PATIENCE

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("target", TARGETS)
def test_saved_inputs_are_handled(target: str) -> None:
    inputs = list(corpus(target))
    assert inputs
    for data in inputs:
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_broken_inputs_are_handled(target: str, data: st.DataObject) -> None:
    """Saved inputs with some bytes replaced, or truncated."""
    content = bytearray(data.draw(st.sampled_from(list(corpus(target)))))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    TARGETS[target](bytes(content[: data.draw(st.none() | st.integers(0, len(content)))]))


@pytest.mark.parametrize("target", TARGETS)
def test_coverage_guided_inputs_are_handled(target: str, tmp_path: Path) -> None:
    fuzzer = [sys.executable, "-m", "fuzz.run", target, "-runs=1000", "-seed=1"]
    done = subprocess.run(
        # Through a shell: Linux counts the memory of the forking process in the child's peak, which the fuzzer limits,
        # and this process may have read large images.
        ["sh", "-c", '"$@"; exit $?', "sh", *fuzzer],
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 1000 runs" in done.stderr
