"""A load of medserve's own client: calls at random times, whatever becomes of the earlier ones."""

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
    """What is to be sent.

    Attributes:
        target: the server's host:port.
        images: what `AsyncClient.classify` takes as images, in turn.
        reasons: asked for with each.
        rate: calls per second, of all clients together.
        duration: seconds that are measured.
        warmup: seconds before them.
        timeout: seconds that each call may take.
        clients: that many, each with its own connection, take turns.
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
    """Sends the load from a process of its own: what came of it, and when, by `time.monotonic`, the last was sent."""
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
            gaps = random.Random(0)  # noqa: S311 - arrivals, no secrets
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
