"""Results of a run of `serving.py`, stored as JSON for the report."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.ceiling import Cost
from benchmarks.measure import Outcome, Shape
from benchmarks.servers import PEER_SERVERS, Server


@dataclass(slots=True)
class Results:
    """All measurements of a run, and the machine."""

    command: str
    date: str
    machine: dict[str, str]
    rounds: int
    seconds: float
    ceiling: list[list[Cost]] = field(default_factory=list)
    """Costs of ONNX Runtime alone, by round."""
    outcomes: dict[str, dict[str, list[Outcome]]] = field(default_factory=dict)
    """By server and label of the load; one outcome for each round."""
    reasons: dict[str, list[str]] = field(default_factory=dict)
    """Reasons for missing figures, by server."""

    def save(self, path: Path) -> None:
        """Writes the results as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Reads results that `save` wrote."""
        plain: dict[str, Any] = json.loads(path.read_text())
        plain["ceiling"] = [[Cost(**cost) for cost in costs] for costs in plain["ceiling"]]
        plain["outcomes"] = {
            server: {label: [Outcome(**each) for each in rounds] for label, rounds in loads.items()}
            for server, loads in plain["outcomes"].items()
        }
        return cls(**plain)

    def add(self, server: Server, shape: Shape, outcome: Outcome | str) -> None:
        """Adds the outcome of one load in one round, or the reason of its failure."""
        if isinstance(outcome, str):
            self.fail(server, f"{shape.label}: {outcome}")
        else:
            self.outcomes.setdefault(server.name, {}).setdefault(shape.label, []).append(outcome)

    def fail(self, server: Server, reason: str) -> None:
        """Adds a reason for missing figures, without duplicates."""
        reasons = self.reasons.setdefault(server.name, [])
        if reason not in reasons:
            reasons.append(reason)

    def figure(self, server: str, label: str, name: str) -> "Figure | None":
        """Returns median and range over the rounds of one field of Outcome; None if not measured."""
        found = self.outcomes.get(server, {}).get(label, [])
        return Figure.of([getattr(outcome, name) for outcome in found]) if found else None

    def least_cpu(self, batch: int) -> float:
        """Returns the CPU time per image of ONNX Runtime alone in µs, with the best number of threads."""
        costs = [cost for costs in self.ceiling for cost in costs if cost.batch == batch]
        return min(
            statistics.median(cost.cpu for cost in costs if cost.threads == threads)
            for threads in {cost.threads for cost in costs}
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """Median and range of a figure over several rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """Summarizes one value for each round."""
        return cls(statistics.median(values), min(values), max(values))


def machine() -> dict[str, str]:
    """Describes the machine, without its host name, and the installed versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {
        "CPU": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "Memory": f"{memory:.0f} GiB",
        "System": platform.system(),
        "Python": platform.python_version(),
        "medserve": ", ".join(f"{name} {version(name)}" for name in ("medserve", "onnxruntime", "grpcio")),
    }
    for peer in PEER_SERVERS:
        if peer.python.is_file() and peer.peer not in found:
            found[peer.peer] = _versions(peer)
    return found


def _versions(peer: Server) -> str:
    code = (
        "import sys; from importlib.metadata import version; "
        "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
    )
    command = [str(peer.python), "-c", code, peer.package, "onnxruntime"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "?"  # noqa: S603
