"""Soak test: a server under mixed load while models are replaced: make soak ARGS="--minutes 3 --transport grpcio".

Writes the resource usage over time (JSON, PNG) and exits with status 1 if it grew, or a response was wrong or lost.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from calls.traffic import MODEL
from samples import onnx_models
from servers.model_folder import POLL, ModelFolder
from servers.server_process import REPOSITORY, Patch, ServerProcess, running_server
from soak.load import Callers, Tally
from soak.samples import FEWEST, Sample, draw, growth, inflight, take

WARM_UP_SECONDS = 3.0
FEWEST_REQUESTS = 500
"""Minimum number of answered requests for a verdict."""
SHOWN = 10
"""Maximum number of wrong and lost responses that are printed."""


@dataclass(frozen=True)
class Report:
    """Result of a soak test."""

    transport: str
    minutes: float
    swaps: int
    requests: int
    by_status: dict[str, int]
    wrong: int
    lost: int
    problems: list[str]
    samples: list[Sample]


def soak(
    transport: str, minutes: float, *, interval: float, swap_seconds: float, callers: int, patch: Patch = ()
) -> Report:
    """Runs a new server under load for `minutes`, with a sample every `interval` seconds."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        models = ModelFolder(Path(folder) / "models")
        for name in ("chest-xray", "breast-cancer-risk"):
            shutil.copytree(REPOSITORY / "models" / name, models.folder / name)
        for version in (1, 2):
            models.publish(MODEL, version, onnx_models.scaled(version))
        flags = ("--models", str(models.folder), "--transport", transport, "--log-level", "error", *POLL)
        with running_server(*flags, patch=patch) as server:
            return asyncio.run(_load(server, models, transport, minutes, interval, swap_seconds, callers))


async def _load(
    server: ServerProcess,
    models: ModelFolder,
    transport: str,
    minutes: float,
    interval: float,
    swap_seconds: float,
    callers: int,
) -> Report:
    load = Callers(server.target, callers, seed=1)
    calling = asyncio.create_task(load.run())
    await asyncio.sleep(WARM_UP_SECONDS)
    began = time.monotonic()
    swaps = 0
    samples: list[Sample] = []
    load.tally.drain_latencies()
    while not calling.done():
        seconds = time.monotonic() - began
        if seconds > 60 * minutes and len(samples) >= FEWEST and load.tally.total() >= FEWEST_REQUESTS:
            break
        if seconds >= (swaps + 1) * swap_seconds:
            swaps += 1
            _swap(models, swaps)
        latencies = load.tally.drain_latencies()
        samples.append(await asyncio.to_thread(take, server, seconds, latencies))
        await asyncio.sleep(interval)
    load.stop()
    await calling
    left = await _left(server)
    problems = [*growth(samples), *_problems(load.tally)]
    if left:
        problems.append(f"{left} requests are still in flight after all callers have stopped")
    statuses = {code.name: count for code, count in load.tally.outcomes.most_common()}
    wrong, lost = len(load.tally.wrong), len(load.tally.lost)
    return Report(transport, minutes, swaps, sum(statuses.values()), statuses, wrong, lost, problems, samples)


def _swap(models: ModelFolder, number: int) -> None:
    """Alternately adds and removes version 3, and replaces chest-xray with another file."""
    if number % 2:
        models.publish(MODEL, 3, onnx_models.scaled(3))
    else:
        models.remove(MODEL, 3)
    content = models.path("chest-xray", 1).read_bytes()
    models.publish("chest-xray", 2 + number, content)
    if number > 2:
        models.remove("chest-xray", number)


async def _left(server: ServerProcess) -> int:
    """Returns the number of requests that do not end within a minute."""
    for _ in range(300):
        left = await asyncio.to_thread(inflight, server)
        if not left:
            break
        await asyncio.sleep(0.2)
    return left


def _problems(tally: Tally) -> list[str]:
    return [f"wrong: {text}" for text in tally.wrong[:SHOWN]] + [f"lost: {text}" for text in tally.lost[:SHOWN]]


def main() -> None:
    """Runs the soak test, prints the result and exits with status 1 on any problem."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--transport", choices=("envoy", "grpcio"), default="envoy")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between samples")
    parser.add_argument("--swap-seconds", type=float, default=3.0, help="seconds between swaps of models")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("build/soak"), help="folder of the report and the plot")
    options = parser.parse_args()
    report = soak(
        options.transport,
        options.minutes,
        interval=options.interval,
        swap_seconds=options.swap_seconds,
        callers=options.callers,
    )
    summary = f"{report.requests:,} requests, {report.wrong} wrong, {report.lost} lost, {report.swaps} swaps"
    draw(report.samples, f"{report.transport}: {summary}", options.out / f"{report.transport}.png")
    (options.out / f"{report.transport}.json").write_text(json.dumps(asdict(report), indent=1))
    sys.stdout.write(f"{summary} in {report.minutes:g} minutes on {report.transport}: {report.by_status}\n")
    for problem in report.problems:
        sys.stdout.write(f"{problem}\n")
    raise SystemExit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
