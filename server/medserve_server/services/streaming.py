"""Bidirectional streams: many requests in flight, answers in their order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from medserve_server.errors import Unavailable
from medserve_server.supervise import start_awaited_task

Request = TypeVar("Request")
Response = TypeVar("Response")


async def answer_in_order(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Response]],
    stopping: asyncio.Event,
    window: int,
) -> AsyncIterator[Response]:
    """Answers a stream's requests concurrently and gives the answers in the order of the requests.

    Args:
        requests: the client's side of the stream.
        answer: answers one request; it puts a ServingError into its answer and never raises one.
        stopping: once set, no further request is read; those that were read are still answered.
        window: requests under way at once; the client's next ones wait on the wire.

    Raises:
        Unavailable: the server is stopping, after the last answer.
    """
    answers: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
    free = asyncio.Semaphore(window - 1)  # beside the one that is being read

    async def read() -> None:
        # Cancelled here, it has no request in its hands: each is queued as soon as it is read.
        try:
            async for request in requests:
                answers.put_nowait(start_awaited_task("stream", answer, request))
                await free.acquire()
        finally:
            answers.put_nowait(None)

    reader = start_awaited_task("stream", read)
    stopper = start_awaited_task("stream", stopping.wait)
    stopper.add_done_callback(lambda _: reader.cancel())
    task: asyncio.Task[Response] | None = None
    try:
        while (task := await answers.get()) is not None:
            yield await task
            free.release()
        if stopping.is_set():
            raise Unavailable("the server is stopping; send the rest to another one")
        await reader  # raises what reading raised
    finally:
        stopper.cancel()
        reader.cancel()
        for left in (task, *(answers.get_nowait() for _ in range(answers.qsize()))):
            if left is not None:
                left.cancel()
