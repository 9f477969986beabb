"""Bidirectional streams: processes requests concurrently and returns responses in order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
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
) -> AsyncGenerator[Response, None]:
    """Answers a stream's requests concurrently and yields the responses in the order of the requests.

    Args:
        requests: the requests sent by the client.
        answer: answers one request; it must return a ServingError as a response instead of raising it.
        stopping: once set, no further request is read; requests already read are still answered.
        window: maximum number of concurrent requests; flow control delays further ones.

    Raises:
        Unavailable: the server is stopping; raised after the last response.
    """
    answers: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
    slots = asyncio.Semaphore(window - 1)  # in addition to the request being read

    async def read() -> None:
        # Cancellation never loses a request: each one is queued as soon as it has been read.
        try:
            async for request in requests:
                answers.put_nowait(start_awaited_task("stream", answer, request))
                await slots.acquire()
        finally:
            answers.put_nowait(None)

    reader = start_awaited_task("stream", read)
    stopper = start_awaited_task("stream", stopping.wait)
    stopper.add_done_callback(lambda _: reader.cancel())
    task: asyncio.Task[Response] | None = None
    try:
        while (task := await answers.get()) is not None:
            yield await task
            slots.release()
        if stopping.is_set():
            raise Unavailable("the server is stopping; send the remaining requests to another server")
        await reader  # re-raises an exception from reading
    finally:
        stopper.cancel()
        reader.cancel()
        for unfinished in (task, *(answers.get_nowait() for _ in range(answers.qsize()))):
            if unfinished is not None:
                unfinished.cancel()
