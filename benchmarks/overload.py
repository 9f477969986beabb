"""Overloads the server with more calls than it can answer: `python -m benchmarks.overload`. Prints a table.

The capacity of the included chest X-ray model is measured first, with 64 calls in flight: for images, as tensors or
in `Classify` requests, for an image as a PNG file, which the server has to decode, and for one with an occlusion map.
Then follow 3 and 5 times as many calls at random times (open loop), for a minute each and with a timeout of one second:
from callers without any backoff ("reckless"), and from programs with medserve's own client. Meanwhile, a probe sends a
call every 0.1 s, and continues after the flood, to measure how soon the server recovers. Server and load run on
separate halves of the cores, so that the load generator does not take CPU time from the server.
"""

import argparse
import io
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import grpc
import numpy as np
from PIL import Image

from benchmarks import client_flood, requests
from benchmarks.processes import running
from benchmarks.servers import ROOT, Server, medserve_servers
from benchmarks.trials import LOGS, answers, free_port
from medserve_client import ImageReasons, ImageSource
from medserve_client.loadtest import LoadPlan, LoadResult, Progress, run
from medserve_client.messages import classify_request

IN_FLIGHT = 64
WARMUP = 2.0
TIMEOUT = 1.0
CLASSIFY = "/medserve.v1.ImageClassification/Classify"
CONNECTIONS = 16
AFTERWARDS = 3.0
"""Seconds for which the probe continues after the flood."""
HEADER = """\
| server | callers | request | flood | sent/s | answered/s | of the most | p50, ms | p99, ms | refused | late | back |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request: its messages and, for `Classify`, the images and reasons from which they are built."""

    name: str
    method: str
    payloads: Sequence[bytes]
    images: Sequence[Sequence[ImageSource]] = ()
    reasons: ImageReasons | None = None


def tensors(rows: int) -> Kind:
    """Returns tensor requests with `rows` images of 28 x 28 each."""
    payloads = [requests.encode(images, "grpc") for images in requests.image_batches(rows)]
    return Kind(f"{rows} of 28 x 28", requests.UNARY, payloads)


def classify_requests(rows: int) -> Kind:
    """Returns `Classify` requests with the same images."""
    return classifying(f"{rows} of 28 x 28", [list(images) for images in requests.image_batches(rows)])


def files(side: int) -> Kind:
    """Returns requests with a PNG file of `side` x `side` pixels: smooth shapes with noise, similar to X-rays."""
    generator = np.random.default_rng(0)
    sent: list[list[ImageSource]] = []
    for _ in range(requests.VARIANTS):
        shapes = Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(shapes) + generator.normal(0, 3, (side, side))
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "png")
        sent.append([file.getvalue()])
    return classifying(f"PNG of {side} x {side}", sent)


def occlusion_maps() -> Kind:
    """Returns requests for an occlusion map of one image of 28 x 28, for which the model computes 50 rows."""
    batches = [list(images) for images in requests.image_batches(1)]
    return classifying("occlusion map", batches, ImageReasons(occlusion=True))


def classifying(name: str, images: Sequence[list[ImageSource]], reasons: ImageReasons | None = None) -> Kind:
    """Returns `Classify` requests with these images."""
    messages = [classify_request(each, "chest-xray", "", 0, reasons) for each in images]
    return Kind(name, CLASSIFY, [message.SerializeToString() for message in messages], images, reasons)


@dataclass(frozen=True, slots=True)
class Answered:
    """One answered call of the probe: the time of the response, and the latency."""

    at: float
    took: float


class Probe:
    """Sends a call every 0.1 s from its own thread while the context is active, and records the answered ones."""

    def __init__(self, target: str, kind: Kind) -> None:
        self.answered: list[Answered] = []
        self._target = target
        self._kind = kind
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with grpc.insecure_channel(self._target) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self._kind.method)
            while not self._stop.wait(0.1):
                began = time.monotonic()
                try:
                    call(self._kind.payloads[0], timeout=TIMEOUT)
                except grpc.RpcError:  # rejected or late, as most are in a flood
                    continue
                now = time.monotonic()
                self.answered.append(Answered(now, now - began))


def recovery(answered: Sequence[Answered], flood_ended: float, usual: float) -> float:
    """Returns the seconds from the end of the flood to the first response within 3 times the usual latency."""
    fast = (call.at for call in answered if call.at >= flood_ended and call.took <= 3 * usual)
    return next(fast, math.inf) - flood_ended


def flood(target: str, kind: Kind, rate: float, seconds: float) -> tuple[LoadResult, float]:
    """Sends calls at this rate; returns the result, and the `time.monotonic` of the end of the flood."""
    ended = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal ended
        if progress.elapsed <= WARMUP + seconds:
            ended = time.monotonic()

    plan = LoadPlan(
        target,
        kind.method,
        kind.payloads,
        rate=rate,
        duration=seconds,
        warmup=WARMUP,
        timeout=TIMEOUT,
        connections=CONNECTIONS,
    )
    return run(plan, on_progress), ended


def client_load(target: str, kind: Kind, rate: float, seconds: float) -> tuple[LoadResult, float]:
    """As `flood`, with medserve's client."""
    return client_flood.run(
        client_flood.ClientLoad(target, kind.images, kind.reasons, rate, seconds, WARMUP, TIMEOUT, CONNECTIONS)
    )


def measure(server: Server, kind: Kind, seconds: float, multiples: Sequence[int], *, client: bool) -> None:
    """Prints a row for each flood of such requests, from medserve's client or from callers without backoff."""
    send, callers = (client_load, "client") if client else (flood, "reckless")
    cores = sorted(os.sched_getaffinity(0))
    ours, its = cores[: len(cores) // 2], cores[len(cores) // 2 :]
    port = free_port()
    target = f"127.0.0.1:{port}"
    command, environment = server.start_with(port)
    command = ["taskset", "--cpu-list", ",".join(map(str, its)), *command]
    LOGS.mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, ours)
    with running(command, environment, LOGS / "overload.log", lambda: answers(server, port), 30):
        most = run(
            LoadPlan(target, kind.method, kind.payloads, concurrency=IN_FLIGHT, duration=10, warmup=WARMUP)
        ).throughput
        with Probe(target, kind) as idle:
            time.sleep(2)
        usual = statistics.median(call.took for call in idle.answered)
        for multiple in multiples:
            with Probe(target, kind) as probe:
                result, ended = send(target, kind, multiple * most, seconds)
                time.sleep(AFTERWARDS)
            late = result.errors["DEADLINE_EXCEEDED"]
            sys.stdout.write(
                f"| {server.name} | {callers} | {kind.name} | {multiple} x | {result.offered:,.0f} "
                f"| {result.throughput:,.0f} | {result.throughput / most:.2f} | {1e3 * result.percentile(50):,.0f} "
                f"| {1e3 * result.percentile(99):,.0f} | {(result.errors.total() - late) / result.sent:.0%} "
                f"| {late / result.sent:.0%} | {recovery(probe.answered, ended, usual):.2f} |\n"
            )
            sys.stdout.flush()
    os.sched_setaffinity(0, cores)


def main() -> None:
    """Floods each transport."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of each flood")
    parser.add_argument("--tensors", type=int, nargs="*", default=[1, 4], help="numbers of images per request")
    parser.add_argument("--files", type=int, nargs="*", default=[512], help="side lengths of PNG files in pixels")
    parser.add_argument("--multiples", type=int, nargs="+", default=[3, 5], help="loads as multiples of the capacity")
    arguments = parser.parse_args()
    others = [*map(files, arguments.files), occlusion_maps()]
    sys.stdout.write(HEADER)
    for server in medserve_servers(ROOT / "models"):
        for kind in [*map(tensors, arguments.tensors), *others]:
            measure(server, kind, arguments.seconds, arguments.multiples, client=False)
        for kind in [*map(classify_requests, arguments.tensors), *others]:
            measure(server, kind, arguments.seconds, arguments.multiples, client=True)


if __name__ == "__main__":
    main()
