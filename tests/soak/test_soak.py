"""A short soak test detects leaks and wrong responses, and reports nothing for a correct server."""

from pathlib import Path

import pytest

from servers.server_process import TRANSPORTS, Patch
from soak.run import Report, soak
from soak.samples import draw


def short(transport: str, patch: Patch = ()) -> Report:
    return soak(transport, 0.05, interval=0.3, swap_seconds=1, callers=4, patch=patch)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_request_is_lost_and_resources_do_not_grow(transport: str, tmp_path: Path) -> None:
    report = short(transport)
    # Memory stabilizes only after minutes of replacements.
    assert [problem for problem in report.problems if not problem.startswith("memory")] == []
    assert report.requests > 100
    assert report.swaps > 1
    assert set(report.by_status) >= {"OK", "CANCELLED", "INVALID_ARGUMENT"}
    draw(report.samples, "short", tmp_path / "short.png")
    assert (tmp_path / "short.png").stat().st_size > 10_000


def test_leaks_are_detected() -> None:
    report = short("grpcio", ("broken", "leaking"))
    assert [problem.split(" grew ")[0] for problem in report.problems] == ["memory", "files", "threads"]


def test_wrong_responses_are_detected() -> None:
    report = short("grpcio", ("broken", "rotated"))
    assert report.wrong > 0
    assert report.problems
