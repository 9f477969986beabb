"""Profiles the server's CPU time by component: `python -m benchmarks.profile`. Needs perf (linux-perf) and py-spy.

perf attributes the CPU time to libraries: ONNX Runtime, gRPC, the kernel, or Python. The time in Python is divided in
proportion to py-spy's samples of the thread that holds the GIL.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from benchmarks import requests
from benchmarks.processes import cpu_seconds, marked_processes, running
from benchmarks.servers import ROOT, Server, medserve_servers
from benchmarks.trials import LOGS, answers, free_port
from medserve_client.loadtest import LoadPlan, Progress
from medserve_client.loadtest import run as run_load

PICTURE = ROOT / "benchmarks" / "profile.png"
IN_FLIGHT = 64
WARMUP = 1.0
LEAST_STACKS = 200
"""Minimum number of py-spy's samples; on a busy machine, py-spy falls behind."""
PLAIN = Server(
    "plain grpc.aio handler",
    ("{python}", "-m", "benchmarks.plain", "{port}"),
    settings={"PYTHONPATH": "{root}:{root}/proto:{root}/client"},
)

# Libraries, of which the first match is used; all others are Python and its extensions.
LIBRARIES: Mapping[str, re.Pattern[str]] = {
    "ONNX Runtime": re.compile(r"onnxruntime"),
    "gRPC": re.compile(r"cygrpc"),
    "kernel: sockets, waking threads": re.compile(r"\[kernel"),
    "C library": re.compile(r"libc\.so|libstdc|ld-linux|\[vdso\]"),
}
# Python frames; a sample is attributed by its innermost frame that matches.
STEPS: Mapping[str, re.Pattern[str]] = {
    "Python: metrics": re.compile(r"prometheus_client/|medserve_server/telemetry/metrics\.py"),
    "Python: answers": re.compile(r"^(encode|_response) \(|_answer \(benchmarks/plain\.py"),
    "Python: reading": re.compile(
        r"medserve_server/services/codec\.py|\b_?(read|parse) \((medserve_server|benchmarks)/"
    ),
    "Python: queue, batch": re.compile(
        r"onnxruntime/|medserve_server/(engine/(batcher|model|session)|services/api)\.py|concurrent/futures/"
    ),
}
REST = "Python: transport, event loop"
PARTS = (*LIBRARIES, *STEPS, REST)
COLORS = ("#1f77b4", "#7f7f7f", "#b0b0b0", "#d9d9d9", "#9467bd", "#8fbc4f", "#17a2a2", "#e0a030", "#d62728")


class Sampler:
    """Samples the server after the warm-up: with perf, together with the CPU time, and then with py-spy."""

    def __init__(self, mark: str, seconds: int, folder: Path) -> None:
        self._mark = mark
        # If the server has a supervisor, its last process handles the requests.
        self._process = max(marked_processes(mark))
        self._seconds = seconds
        self._folder = folder
        self._thread = threading.Thread(target=self._sample)
        self._answered = 0
        self._cpu_per_request = 0.0
        self._failed = ""

    def __call__(self, progress: Progress) -> None:
        """Progress callback of the load, called ten times per second."""
        self._answered = progress.succeeded
        if progress.elapsed > WARMUP and not self._thread.ident:
            self._thread.start()

    def microseconds(self) -> dict[str, float]:
        """Waits for the samples and returns the CPU time per request by part.

        Raises:
            RuntimeError: Sampling failed.
        """
        self._thread.join()
        if self._failed:
            raise RuntimeError(f"cannot profile the server, which may require root: {self._failed}")
        report = _output("perf", "report", "-i", f"{self._folder}/perf", "--stdio", "--sort", "dso")
        stacks = (self._folder / "stacks").read_text().splitlines()
        return {part: share * self._cpu_per_request * 1e6 for part, share in shares(report, stacks).items()}

    def _sample(self) -> None:
        process, seconds = str(self._process), str(self._seconds)
        cpu, answered = cpu_seconds(self._mark), self._answered
        try:
            perf = ("perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-o", f"{self._folder}/perf")
            _output(*perf, "-p", process, "sleep", seconds)
            self._cpu_per_request = (cpu_seconds(self._mark) - cpu) / (self._answered - answered)
            spy = ("py-spy", "record", "--gil", "--threads", "--format", "raw", "--output", f"{self._folder}/stacks")
            _output(*spy, "--rate", "200", "--duration", seconds, "--pid", process)
        except subprocess.CalledProcessError as error:
            self._failed = error.stderr[-500:]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


def shares(report: str, stacks: Sequence[str]) -> dict[str, float]:
    """Returns each part's share of the CPU time, from perf's report and py-spy's stacks.

    Raises:
        RuntimeError: There are too few stacks.
    """
    found = dict.fromkeys(PARTS, 0.0)
    python = 0.0
    for overhead, library in re.findall(r"^\s+([\d.]+)%\s+(\S+)", report, re.MULTILINE):
        part = next((part for part, known in LIBRARIES.items() if known.search(library)), None)
        if part is None:
            python += float(overhead) / 100
        else:
            found[part] += float(overhead) / 100
    samples: Counter[str] = Counter()
    for line in stacks:
        stack, _, taken = line.rpartition(" ")
        samples[step_of(stack)] += int(taken)
    if samples.total() < LEAST_STACKS:
        raise RuntimeError(f"py-spy took {samples.total()} samples, but {LEAST_STACKS} are needed; increase --seconds")
    for step, count in samples.items():
        found[step] = python * count / samples.total()
    return found


def step_of(stack: str) -> str:
    """Returns the step to which a stack of Python frames, outermost first, is attributed."""
    for frame in reversed(stack.split(";")):
        for step, known in STEPS.items():
            if known.search(frame):
                return step
    return REST


def profile(server: Server, seconds: int) -> dict[str, float]:
    """Starts a server, applies a load, and returns its CPU time per request by part."""
    port = free_port()
    command, environment = server.start_with(port)
    payloads = [requests.encode(images, "grpc") for images in requests.image_batches(1)]
    duration = WARMUP + 2 * seconds + 3
    plan = LoadPlan(f"127.0.0.1:{port}", requests.UNARY, payloads, concurrency=IN_FLIGHT, duration=duration, warmup=0)
    LOGS.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(command, environment, LOGS / "profile.log", lambda: answers(server, port), 30) as started,
    ):
        sampler = Sampler(started.mark, seconds, Path(folder))
        result = run_load(plan, sampler)
        if result.errors:
            raise RuntimeError(f"requests failed: {dict(result.errors)}")
        return sampler.microseconds()


def draw(found: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Plots one stacked bar for each server."""
    figure, panel = plt.subplots(figsize=(10, 4), layout="constrained")
    names = list(found)[::-1]
    left = [0.0] * len(names)
    for part, color in zip(PARTS, COLORS, strict=True):
        widths = [found[name][part] for name in names]
        panel.barh(names, widths, left=left, color=color, label=part)
        for row, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width > 0.03 * max(sum(times.values()) for times in found.values()):
                panel.text(start + width / 2, row, f"{width:.0f}", ha="center", va="center", fontsize=9)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        panel.text(total, row, f"  {total:.0f}", va="center", fontweight="bold")
    panel.set_xlim(0, 1.1 * max(left))
    panel.set_xlabel(f"CPU time of the server per image, µs: unary, {IN_FLIGHT} in flight")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Profiles the plain server and medserve's transports, and plots the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="duration of each sampling of each server")
    arguments = parser.parse_args()
    for program, how in (("perf", "install Debian's linux-perf"), ("py-spy", "pip install py-spy")):
        if shutil.which(program) is None:
            raise SystemExit(f"benchmarks.profile needs {program}: {how}")
    found: dict[str, dict[str, float]] = {}
    for server in (PLAIN, *medserve_servers()):
        sys.stderr.write(f"{server.name}\n")
        found[server.name] = profile(server, arguments.seconds)
        sys.stderr.write("".join(f"  {part:32} {time:6.1f} µs\n" for part, time in found[server.name].items()))
    draw(found, PICTURE)


if __name__ == "__main__":
    main()
