import os
from pathlib import Path

import pytest

from medserve_server.cpus import available_cpus

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [("max 100000", ALLOWED), ("50000 100000", 1), ("100000 100000", 1), (f"{(ALLOWED + 5) * 1000} 1000", ALLOWED)],
)
def test_the_quota_of_cgroup_v2_is_respected(tmp_path: Path, cpu_max: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{cpu_max}\n")
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", ALLOWED), ("100000", 1), ("10000", 1)])
def test_the_quota_of_cgroup_v1_is_respected(tmp_path: Path, quota: str, expected: int) -> None:
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cpus(tmp_path) == expected


def test_without_a_quota_the_affinity_is_respected(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == ALLOWED
    one = next(iter(os.sched_getaffinity(0)))
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {one})
        assert available_cpus(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)
