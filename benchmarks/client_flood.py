"""An open-loop load from medserve's own client: Poisson arrivals, independent of the completion of earlier calls."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context

import numpy as np

from medserve_client import AsyncClient, ImageReasons, ImageSource, InferenceError
from medserve_client.loadtest import LoadResult


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """The load to send.

    Attributes:
        target: Address of the server as host:port.
        images: Arguments of `AsyncClient.classify`, sent in turn.
        reasons: Explanations to request with each call.
        rate: Calls per second of all clients together.
        duration: Measured time in seconds.
        warmup: Warm-up time in seconds before the measurement.
        timeout: Timeout of a call in seconds.
        clients: Number of clients, each with its own connection, that take turns.
    """

    target: str
    images: Sequence[Sequence[ImageSource]]
    reasons: ImageReasons | None
    rate: float
    duration: float
    warmup: float
    timeout: float
    clients: int


def run(load: ClientLoad) -> tuple[LoadResult, float]:
    """Sends the load from a separate process; returns the result, and the `time.monotonic` of the last call."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_run, load).result()


def _run(load: ClientLoad) -> tuple[LoadResult, float]:
    return asyncio.run(_send(load))


async def _send(load: ClientLoad) -> tuple[LoadResult, float]:
    latencies, errors, lateness = list[float](), Counter[str](), list[float]()
    completed = 0
    began = time.monotonic() + load.warmup
    end = began + load.duration

    async def call(client: AsyncClient, images: Sequence[ImageSource], due: float) -> None:
        nonlocal completed
        if due >= began:
            lateness.append(time.monotonic() - due)
        try:
            await client.classify(images, "chest-xray", reasons=load.reasons)
        except InferenceError as error:
            if due >= began:
                errors[error.code.name] += 1
            return
        now = time.monotonic()
        completed += began <= now < end
        if due >= began:
            latencies.append(now - due)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as calls:
        clients = [
            await stack.enter_async_context(AsyncClient(load.target, timeout=load.timeout)) for _ in range(load.clients)
        ]

        async def arrivals() -> float:
            turns, images = cycle(clients), cycle(load.images)
            gaps = random.Random(0)  # noqa: S311 - not for cryptography
            due = time.monotonic()
            while due < end:
                await asyncio.sleep(due - time.monotonic())
                calls.create_task(call(next(turns), next(images), due))
                due += gaps.expovariate(load.rate)
            return time.monotonic()

        sending = calls.create_task(arrivals())
        await asyncio.sleep(began - time.monotonic())
        cpu = time.process_time()
        await asyncio.sleep(end - time.monotonic())
        cpu = time.process_time() - cpu
        last = await sending
    sent = len(latencies) + errors.total()
    return LoadResult(
        np.array(latencies), errors, sent, completed, load.duration, float(np.mean(lateness)), cpu, b""
    ), last
