"""HTTP calls in progress: cancels them on timeout or client disconnect, and bounds the memory of incomplete ones."""

import asyncio
import math
import time
from typing import Any

from medserve_server.errors import Overloaded
from medserve_server.http.asgi import Event, Receive
from medserve_server.supervise import start_awaited_task

POLL_INTERVAL = 0.05
PROBES = 32
"""Maximum calls per poll that are checked for a client disconnect. A check costs as much as a small message."""
FREE_BYTES = 1024 * 1024
"""Bytes of an incomplete message that every call may buffer, regardless of all other calls."""
UNFINISHED_MESSAGES = 16
"""Limit on the total size of incomplete messages beyond `FREE_BYTES` each, in messages of the maximum size.

The limits on concurrent calls apply only once a message is complete: without this limit, clients that never send the
last byte could exhaust the memory."""
BODY_SECONDS = 60.0
"""Time in which a request body has to arrive, plus one second for each `BODY_RATE` bytes."""
BODY_RATE = 16 * 1024
"""Minimum transfer rate of a request body, in bytes per second."""


class OpenCall:
    """A call and the task that handles it."""

    __slots__ = (
        "_body_end",
        "_calls",
        "_receive",
        "_task",
        "deadline",
        "disconnected",
        "held",
        "overdue",
        "probe",
        "probed_at",
        "read",
    )

    def __init__(self, calls: "OpenCalls", task: "asyncio.Task[Any]", receive: Receive, deadline: float | None) -> None:
        self._calls = calls
        self._task = task
        self._receive = receive
        self.deadline = deadline
        self.read = False
        """Whether the body is complete. Until then, the task that reads it detects a client disconnect."""
        self.held = 0
        """Bytes that count toward the limit on incomplete messages."""
        self.probed_at = 0.0
        self.probe: asyncio.Task[Event] | None = None
        self.disconnected = False
        """Whether the task was cancelled because the client disconnected."""
        self.overdue = ""
        """Reason for the client if the task was cancelled because it took too long, else empty."""
        self._body_end = math.inf

    def limit_body(self) -> None:
        """Starts the time limit for the body: the task is cancelled if the body is not complete in time."""
        self._body_end = time.monotonic() + BODY_SECONDS

    def hold(self, count: int) -> None:
        """Sets the number of buffered bytes of an incomplete message; 0 once it is complete.

        Raises:
            Overloaded: all calls together hold too many bytes.
        """
        beyond = max(0, count - FREE_BYTES)
        if beyond > self.held and self._calls.held + beyond - self.held > self._calls.max_held:
            text = f"incomplete requests already hold {self._calls.held} bytes; try again later"
            raise Overloaded(text, limit="calls")
        self._calls.held += beyond - self.held
        self.held = beyond

    async def chunk(self) -> bytes:
        """Returns the next part of the body, which may be empty, and sets `read` after the last one.

        If the client disconnected, cancels the task and never returns.
        """
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self.disconnect()
            await asyncio.get_running_loop().create_future()
        self.read = not event.get("more_body", False)
        chunk: bytes = event.get("body", b"")
        self._body_end += len(chunk) / BODY_RATE
        return chunk

    def disconnect(self) -> None:
        """Cancels the task, since the client disconnected."""
        if not (self.disconnected or self.overdue):
            self.disconnected = True
            self._task.cancel()

    def check_time(self, now: float) -> None:
        """Cancels the task if the deadline has passed or the body is late."""
        if self.disconnected or self.overdue:
            return
        if self.deadline is not None and now >= self.deadline:
            self.overdue = "the deadline passed before the response was ready"
        elif not self.read and now >= self._body_end:
            self.overdue = (
                f"the request was not complete after {BODY_SECONDS:g} seconds "
                f"plus one for each {BODY_RATE} bytes received"
            )
        if self.overdue:
            self._task.cancel()

    def check_client(self) -> None:
        """Cancels the task if the client has disconnected since the last probe.

        An ASGI server reports this as the result of `receive`: pyvoy returns immediately, with an empty message while
        the client is connected; other servers return only when it disconnects.
        """
        if self.probe is None:
            self.probe = start_awaited_task("open calls", self._received)
        elif self.probe.done():
            if self.probe.result()["type"] == "http.disconnect":
                self.disconnect()
            self.probe = None

    async def _received(self) -> Event:
        return await self._receive()

    def end(self) -> None:
        """Cancels a pending probe and releases the held bytes."""
        if self.held:
            self.hold(0)
        if self.probe is not None:
            self.probe.cancel()


class OpenCalls:
    """All HTTP calls in progress.

    Args:
        max_message_bytes: maximum size of a request.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._open: dict[OpenCall, None] = {}
        self.held = 0
        self.max_held = UNFINISHED_MESSAGES * max_message_bytes

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, receive: Receive, deadline: float | None) -> OpenCall:
        """Registers a call handled by the current task, until `end` is called."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - called from a coroutine
        call = OpenCall(self, task, receive, deadline)
        self._open[call] = None
        return call

    def end(self, call: OpenCall) -> None:
        """Removes a call."""
        del self._open[call]
        call.end()

    def cancel(self) -> None:
        """Cancels all calls."""
        for call in self._open:
            call.disconnect()

    async def watch(self) -> None:
        """Checks the calls periodically, until cancelled; short calls finish before their first check."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            now = time.monotonic()
            calls = list(self._open)
            for call in calls:
                call.check_time(now)
            waiting = [call for call in calls if call.read]
            waiting.sort(key=lambda call: call.probed_at)
            for call in waiting[:PROBES]:
                call.probed_at = now
                call.check_client()
