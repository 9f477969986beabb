"""More calls than the server can answer, for a minute: `python -m benchmarks.overload`. Prints a table.

The most that the shipped chest X-ray model gives, 64 calls in flight, is measured first: of some pictures, as tensors
or as `Classify` takes them, of a picture as a PNG file, which the server has to decode, and of one with an occlusion
map. Then come 3 and 5 times as many, at random times, whatever becomes of them, each with a second to be answered in:
from callers that never hold back, and from programs with medserve's own client. Meanwhile another caller asks once
every tenth of a second, and goes on doing so when the flood is over: it tells how soon the server is back. Server and
load get half of the cores each, so that a larger load takes nothing from the server but by what it sends.
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
"""Seconds for which the other caller goes on."""
HEADER = """\
| server | callers | request | flood | sent/s | answered/s | of the most | p50, ms | p99, ms | refused | late | back |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a flood consists of: the messages, and, where they are those of `Classify`, what they are made of."""

    name: str
    method: str
    payloads: Sequence[bytes]
    images: Sequence[Sequence[ImageSource]] = ()
    reasons: ImageReasons | None = None


def tensors(rows: int) -> Kind:
    """Requests with that many pictures of 28 x 28 each."""
    payloads = [requests.encode(images, "grpc") for images in requests.pictures(rows)]
    return Kind(f"{rows} of 28 x 28", requests.UNARY, payloads)


def pictures(rows: int) -> Kind:
    """The same pictures as `Classify` takes them."""
    return classifying(f"{rows} of 28 x 28", [list(images) for images in requests.pictures(rows)])


def files(side: int) -> Kind:
    """Requests with a PNG file of that many pixels along either side: smooth shapes under noise, as X-rays have it."""
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
    """Requests with one picture of 28 x 28 whose answer is to be explained, for which the model computes 50 rows."""
    return classifying("occlusion map", [list(images) for images in requests.pictures(1)], ImageReasons(occlusion=True))


def classifying(name: str, images: Sequence[list[ImageSource]], reasons: ImageReasons | None = None) -> Kind:
    """Requests for what these pictures show."""
    messages = [classify_request(each, "chest-xray", "", 0, reasons) for each in images]
    return Kind(name, CLASSIFY, [message.SerializeToString() for message in messages], images, reasons)


@dataclass(frozen=True, slots=True)
class Answered:
    """One call of the other caller: when its answer came, and how long it took."""

    at: float
    took: float


class Caller:
    """Asks every tenth of a second, in a thread of its own, until told to stop, and notes what is answered."""

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
                except grpc.RpcError:  # refused or late, as most are in a flood
                    continue
                now = time.monotonic()
                self.answered.append(Answered(now, now - began))


def recovery(answered: Sequence[Answered], flood_ended: float, usual: float) -> float:
    """Seconds from the flood's end to the first answer that came about as fast as usual."""
    fast = (call.at for call in answered if call.at >= flood_ended and call.took <= 3 * usual)
    return next(fast, math.inf) - flood_ended


def flood(target: str, kind: Kind, rate: float, seconds: float) -> tuple[LoadResult, float]:
    """Sends calls at this rate, and says what came of them and when, on the clock of `time.monotonic`, they ended."""
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
    """As `flood`, by medserve's client."""
    return client_flood.run(
        client_flood.ClientLoad(target, kind.images, kind.reasons, rate, seconds, WARMUP, TIMEOUT, CONNECTIONS)
    )


def measure(server: Server, kind: Kind, seconds: float, multiples: Sequence[int], *, client: bool) -> None:
    """Prints a row for each flood of such requests, by medserve's client or by callers that never hold back."""
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
        with Caller(target, kind) as calm:
            time.sleep(2)
        usual = statistics.median(call.took for call in calm.answered)
        for multiple in multiples:
            with Caller(target, kind) as caller:
                result, ended = send(target, kind, multiple * most, seconds)
                time.sleep(AFTERWARDS)
            late = result.errors["DEADLINE_EXCEEDED"]
            sys.stdout.write(
                f"| {server.name} | {callers} | {kind.name} | {multiple} x | {result.offered:,.0f} "
                f"| {result.throughput:,.0f} | {result.throughput / most:.2f} | {1e3 * result.percentile(50):,.0f} "
                f"| {1e3 * result.percentile(99):,.0f} | {(result.errors.total() - late) / result.sent:.0%} "
                f"| {late / result.sent:.0%} | {recovery(caller.answered, ended, usual):.2f} |\n"
            )
            sys.stdout.flush()
    os.sched_setaffinity(0, cores)


def main() -> None:
    """Floods each transport."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each flood")
    parser.add_argument("--tensors", type=int, nargs="*", default=[1, 4], help="pictures of a request")
    parser.add_argument("--files", type=int, nargs="*", default=[512], help="pixels along a side of a PNG file")
    parser.add_argument("--multiples", type=int, nargs="+", default=[3, 5], help="of the most that it can answer")
    arguments = parser.parse_args()
    others = [*map(files, arguments.files), occlusion_maps()]
    sys.stdout.write(HEADER)
    for server in medserve_servers(ROOT / "models"):
        for kind in [*map(tensors, arguments.tensors), *others]:
            measure(server, kind, arguments.seconds, arguments.multiples, client=False)
        for kind in [*map(pictures, arguments.tensors), *others]:
            measure(server, kind, arguments.seconds, arguments.multiples, client=True)


if __name__ == "__main__":
    main()
