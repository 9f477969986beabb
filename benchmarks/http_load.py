"""The load for the peers that speak HTTP/1.1: as little work for each request as Python can do.

It is to them what `medserve_client.loadtest` is to gRPC, so that no peer is measured through a slower client:
requests are bytes made beforehand, one connection for each that is in flight.
"""

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection as Pipe
from multiprocessing.sharedctypes import SynchronizedArray

import numpy as np

from medserve_client.loadtest import LoadError, LoadResult, Progress

PROGRESS = 0.1


@dataclass(frozen=True, slots=True)
class HttpPlan:
    """What to send, and for how long; as LoadPlan has it."""

    port: int
    path: str
    content_type: str
    payloads: Sequence[bytes]
    concurrency: int
    duration: float
    warmup: float
    timeout: float = 30.0


def run(plan: HttpPlan, on_progress: Callable[[Progress], None]) -> LoadResult:
    """Makes the load in a process of its own, and waits for it."""
    spawn = multiprocessing.get_context("spawn")
    counts = spawn.Array("Q", 2)
    mine, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(plan, counts, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        start: float = mine.recv()
        while not mine.poll(PROGRESS):
            on_progress(Progress(time.perf_counter() - start, counts[0], counts[1]))
        result: LoadResult = mine.recv()
    except EOFError:
        raise LoadError(f"the process that made the load on port {plan.port} died") from None
    finally:
        process.terminate()
        process.join()
    return result


def _work(plan: HttpPlan, counts: "SynchronizedArray[int]", pipe: "Pipe[float | LoadResult, None]") -> None:
    pipe.send(time.perf_counter())
    pipe.send(asyncio.run(_load(plan, counts)))


async def _load(plan: HttpPlan, counts: "SynchronizedArray[int]") -> LoadResult:
    begin = time.perf_counter() + plan.warmup
    end = begin + plan.duration
    head = f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {plan.content_type}\r\nContent-Length: "
    turns = cycle([f"{head}{len(payload)}\r\n\r\n".encode() + payload for payload in plan.payloads])
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    samples: list[bytes] = []
    first = asyncio.Event()
    completed = 0

    async def worker() -> None:
        nonlocal completed
        reader, writer = await asyncio.open_connection("127.0.0.1", plan.port)
        while (sent := time.perf_counter()) < end:
            writer.write(next(turns))
            status, body = await _answer(reader)
            now = time.perf_counter()
            counts[0 if status == "200" else 1] += 1
            if not samples:
                samples.append(body)
                first.set()
            if begin <= now < end:
                completed += status == "200"
            if begin <= sent and status == "200":
                latencies.append(now - sent)
            elif begin <= sent:
                errors[f"HTTP {status}"] += 1
        writer.close()

    # The first payload goes first, and alone, so that the sample is its answer.
    workers = [asyncio.create_task(worker())]
    await asyncio.wait([workers[0], asyncio.create_task(first.wait())], return_when=asyncio.FIRST_COMPLETED)
    workers += [asyncio.create_task(worker()) for _ in range(plan.concurrency - 1)]
    await asyncio.sleep(begin - time.perf_counter())
    cpu = time.process_time()
    await asyncio.sleep(end - time.perf_counter())
    cpu = time.process_time() - cpu
    async with asyncio.timeout(plan.timeout):
        await asyncio.gather(*workers)
    return LoadResult(
        latencies=np.array(latencies, np.float64),
        errors=errors,
        sent=len(latencies) + errors.total(),
        completed=completed,
        elapsed=plan.duration,
        lateness=0.0,
        cpu_seconds=cpu,
        sample=samples[0],
    )


async def _answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The status and the body of one response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = head[9:12]
    _, found, rest = head.partition("content-length:")
    if found:
        return status, await reader.readexactly(int(rest.split("\r\n", 1)[0]))
    body = b""
    while size := int(await reader.readline(), 16):  # chunked
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return status, body
