"""Number of CPUs available to this process, which in a container may be fewer than the host has."""

import math
import os
from pathlib import Path


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the smaller of the CPU affinity and the cgroup's CPU quota, rounded up; at least 1.

    Reads `cpu.max` (cgroup v2) or `cpu/cpu.cfs_quota_us` (v1) in `cgroup`, which in a container is the container's own
    cgroup.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(cgroup)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _cgroup_quota(cgroup: Path) -> float | None:
    """Returns the quota in CPUs, or None if there is no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except FileNotFoundError:
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except FileNotFoundError:
            return None
    return None if quota in {"max", "-1"} else int(quota) / int(period)
