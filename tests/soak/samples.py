"""Resource usage of a server over time: sampling, growth detection and plots."""

import os
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from scipy.stats import theilslopes

from servers.server_process import ServerProcess

mpl.use("Agg")

import matplotlib.pyplot as plt

MIB = 1024 * 1024
FEWEST = 18
"""Minimum number of samples for a verdict."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Resource usage of a server at one time."""

    seconds: float
    """Seconds since the start."""
    memory: float
    """Resident memory in MiB."""
    files: int
    """Open descriptors."""
    threads: int
    inflight: int
    """Requests in flight."""
    p50: float
    """Latencies in milliseconds of unary calls since the last sample."""
    p99: float


def take(server: ServerProcess, seconds: float, latencies: tuple[float, float]) -> Sample:
    """Samples a server with a single serving process."""
    (pid,) = server.workers()
    folder = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return Sample(
        seconds,
        int(status["VmRSS"].split()[0]) * 1024 / MIB,
        len(os.listdir(folder / "fd")),  # noqa: PTH208
        int(status["Threads"]),
        inflight(server),
        *latencies,
    )


def inflight(server: ServerProcess) -> int:
    """Returns the number of requests in flight."""
    lines = server.metrics().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("medserve_inflight_requests{")))


def growth(samples: list[Sample]) -> list[str]:
    """Returns what grew over the last two thirds of the time, by the Theil-Sen slope."""
    late = samples[len(samples) // 3 :]
    found = []
    duration = late[-1].seconds - late[0].seconds
    for name, unit, allowed in (("memory", " MiB", 10.0), ("files", "", 3.0), ("threads", "", 3.0)):
        values = [float(getattr(sample, name)) for sample in late]
        slope = theilslopes(values, [sample.seconds for sample in late]).slope
        limit = allowed + 0.05 * values[0]
        if slope * duration > limit:
            found.append(f"{name} grew by {slope * duration:.1f}{unit} in {duration:.0f} s, {limit:.1f} are allowed")
    return found


def draw(samples: list[Sample], title: str, path: Path) -> None:
    """Plots memory, descriptors and threads, latency, and requests in flight over time."""
    figure, panels = plt.subplots(2, 2, figsize=(10, 6), sharex=True, layout="constrained")
    minutes = [sample.seconds / 60 for sample in samples]
    series = (
        ("resident memory, MiB", ("memory",)),
        ("descriptors and threads", ("files", "threads")),
        ("latency of unary calls, ms", ("p50", "p99")),
        ("requests in flight", ("inflight",)),
    )
    for panel, (label, names) in zip(panels.flat, series, strict=True):
        for name in names:
            panel.plot(minutes, [getattr(sample, name) for sample in samples], label=name)
        panel.set_title(label, fontsize=10)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        if len(names) > 1:
            panel.legend(fontsize=8)
    for panel in panels[1]:
        panel.set_xlabel("minutes")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
