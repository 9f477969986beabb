"""Runs a load plan: starts its processes simultaneously, reports progress and merges their results."""

import ctypes
import multiprocessing
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import SpawnProcess

import numpy as np

from medserve_client.loadtest.plan import LoadPlan, LoadResult
from medserve_client.loadtest.protocol.connection import Endpoint
from medserve_client.loadtest.protocol.encryption import client_context
from medserve_client.loadtest.worker import Share, Worker
from medserve_client.tls_mismatch import explanation

_TARGET = re.compile(r"(?:dns:///)?(?:\[(?P<ip6>[0-9a-fA-F:.]+)\]|(?P<host>[^:/]+)):(?P<port>\d+)")
_PROGRESS = 0.1
"""Seconds between progress reports."""


class LoadError(Exception):
    """The load could not be generated; the message says why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run.

    Attributes:
        elapsed: seconds since the start, including the warm-up.
        succeeded: successful requests since the start.
        failed: failed requests since the start.
    """

    elapsed: float
    succeeded: int
    failed: int


def run(plan: LoadPlan, on_progress: Callable[[Progress], None] = lambda _: None) -> LoadResult:
    """Generates the load in separate processes and waits for them to finish.

    The processes are spawned: a script that calls this needs the usual `if __name__ == "__main__"` guard.

    Args:
        plan: load to generate.
        on_progress: called ten times a second.

    Raises:
        LoadError: the target is malformed, no server answers there, or a process died.
    """
    host, port = address(plan.target)
    spawn = multiprocessing.get_context("spawn")
    counts = spawn.RawArray(ctypes.c_uint64, 2 * plan.processes)  # each element has a single writer
    pipes = []
    with _terminated_on_exit() as processes:
        for index in range(plan.processes):
            mine, theirs = spawn.Pipe()
            process = spawn.Process(target=_work, args=(Share(plan, index), host, port, counts, theirs), daemon=True)
            process.start()
            theirs.close()  # so that recv raises EOFError when the process dies
            processes.append(process)
            pipes.append(mine)
        for pipe in pipes:
            _receive(pipe, plan)
        start = time.perf_counter() + 0.05  # all processes share the clock
        for pipe in pipes:
            pipe.send(start)
        received = [_receive(pipe, plan, lambda: on_progress(_progress(counts, start))) for pipe in pipes]
        result = _merged([result for result in received if result])
    # A plaintext HTTP/1.1 connection is established before a TLS server can reject it.
    if not result.completed and (mismatch := explanation(plan.target, encrypted=plan.tls is not None)):
        raise LoadError(mismatch)
    return result


def address(target: str) -> tuple[str, int]:
    """Parses HOST:PORT.

    Raises:
        LoadError: the target has another form.
    """
    if not (match := _TARGET.fullmatch(target)):
        raise LoadError(f"target is {target!r}; expected HOST:PORT")
    return match["ip6"] or match["host"], int(match["port"])


@contextmanager
def _terminated_on_exit() -> Iterator[list[SpawnProcess]]:
    processes: list[SpawnProcess] = []
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(
    share: Share,
    host: str,
    port: int,
    counts: "ctypes.Array[ctypes.c_uint64]",
    pipe: "Pipe[LoadResult | LoadError | None, float]",
) -> None:
    """Main function of a process: connects, waits for the start, generates its load and sends the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent terminates it
    mine = memoryview(counts).cast("B").cast("Q")[2 * share.index : 2 * share.index + 2]
    plan = share.plan
    protocol = "h2" if plan.http_headers is None else "http/1.1"
    try:
        context = None if plan.tls is None else client_context(plan.tls, protocol)
        worker = Worker(share, Endpoint(host, port, protocol, context), mine)
        worker.connect()
    except OSError as error:
        mismatch = explanation(plan.target, encrypted=plan.tls is not None)
        pipe.send(LoadError(mismatch or f"cannot connect to {plan.target}: {error}"))
        return
    pipe.send(None)
    pipe.send(worker.run(pipe.recv()))


def _receive(
    pipe: "Pipe[float, LoadResult | LoadError | None]", plan: LoadPlan, meanwhile: Callable[[], None] = lambda: None
) -> LoadResult | None:
    """Receives the next message of a process: None once it is connected, then its result."""
    while not pipe.poll(_PROGRESS):
        meanwhile()
    try:
        message = pipe.recv()
    except EOFError:
        raise LoadError(f"a load generator process for {plan.target} died") from None
    if isinstance(message, LoadError):
        raise message
    return message


def _progress(counts: "ctypes.Array[ctypes.c_uint64]", start: float) -> Progress:
    now = list(counts)
    return Progress(max(0.0, time.perf_counter() - start), sum(now[::2]), sum(now[1::2]))


def _merged(results: list[LoadResult]) -> LoadResult:
    sent = sum(result.sent for result in results)
    return LoadResult(
        latencies=np.concatenate([result.latencies for result in results]),
        errors=sum((result.errors for result in results), Counter()),
        sent=sent,
        completed=sum(result.completed for result in results),
        elapsed=results[0].elapsed,
        lateness=sum(result.lateness * result.sent for result in results) / sent if sent else 0.0,
        cpu_seconds=sum(result.cpu_seconds for result in results),
        sample=next((result.sample for result in results if result.sample), b""),
    )
