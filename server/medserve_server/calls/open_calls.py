"""Calls under way over HTTP: ended when they take too long or their client leaves, bounded while they arrive."""

import asyncio
import math
import time
from typing import Any

from medserve_server.errors import Overloaded
from medserve_server.http.asgi import Event, Receive
from medserve_server.supervise import start_awaited_task

POLL_INTERVAL = 0.05
PROBES = 32
"""Calls that are asked at each look whether their client left. A question costs as much as a small message."""
FREE_BYTES = 1024 * 1024
"""What every call may hold of a message that has not arrived whole, however much the other calls hold."""
UNFINISHED_MESSAGES = 16
"""Messages of the greatest length that may be held together, beyond `FREE_BYTES` of each, before they are whole.

The limits on calls count a call when its message is there: without this one, clients that never send the last byte
would fill the memory."""
BODY_SECONDS = 60.0
"""In which a request that is read as a whole has to be there, and one second more for each `BODY_RATE` bytes of it."""
BODY_RATE = 16 * 1024
"""Bytes in a second of the slowest client that may send a request of the greatest length."""


class OpenCall:
    """A call and the task that answers it."""

    __slots__ = (
        "_body_end",
        "_calls",
        "_receive",
        "_task",
        "deadline",
        "held",
        "left",
        "looked_at",
        "overdue",
        "probe",
        "read",
    )

    def __init__(self, calls: "OpenCalls", task: "asyncio.Task[Any]", receive: Receive, deadline: float | None) -> None:
        self._calls = calls
        self._task = task
        self._receive = receive
        self.deadline = deadline
        self.read = False
        """The body was received whole: until then, whoever reads it learns when the client leaves."""
        self.held = 0
        """Bytes that count against the bound on messages that are not whole."""
        self.looked_at = 0.0
        self.probe: asyncio.Task[Event] | None = None
        self.left = False
        """The task was cancelled since the client left."""
        self.overdue = ""
        """Why the task was cancelled where it took too long: a text for the client."""
        self._body_end = math.inf

    def limit_body(self) -> None:
        """Cancels the task where the body does not arrive whole in time, on the clock of `time.monotonic`."""
        self._body_end = time.monotonic() + BODY_SECONDS

    def hold(self, count: int) -> None:
        """Notes how many bytes are there of a message that is not whole; 0 once it is.

        Raises:
            Overloaded: All calls together hold too many.
        """
        beyond = max(0, count - FREE_BYTES)
        if beyond > self.held and self._calls.held + beyond - self.held > self._calls.max_held:
            text = f"requests that have not been read hold {self._calls.held} bytes already; try again later"
            raise Overloaded(text, limit="calls")
        self._calls.held += beyond - self.held
        self.held = beyond

    async def chunk(self) -> bytes:
        """Returns the next part of the body, which may be empty, and sets `read` with the last one.

        Where the client left, cancels the task, and never returns.
        """
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self.leave()
            await asyncio.get_running_loop().create_future()
        self.read = not event.get("more_body", False)
        chunk: bytes = event.get("body", b"")
        self._body_end += len(chunk) / BODY_RATE
        return chunk

    def leave(self) -> None:
        """Cancels the task: nobody waits for its answer."""
        if not (self.left or self.overdue):
            self.left = True
            self._task.cancel()

    def look(self, now: float) -> None:
        """Cancels the task where the deadline passed, or the body is late."""
        if self.left or self.overdue:
            return
        if self.deadline is not None and now >= self.deadline:
            self.overdue = "the deadline passed before the answer"
        elif not self.read and now >= self._body_end:
            self.overdue = (
                f"the request did not arrive whole within {BODY_SECONDS:g} seconds "
                f"and one more for each {BODY_RATE} bytes that came"
            )
        if self.overdue:
            self._task.cancel()

    def ask(self) -> None:
        """Cancels the task where the client left since the last question.

        An ASGI server says so in answer to `receive`: pyvoy answers at once, with an empty message while the client
        is there, other servers when it leaves.
        """
        if self.probe is None:
            self.probe = start_awaited_task("open calls", self._received)
        elif self.probe.done():
            if self.probe.result()["type"] == "http.disconnect":
                self.leave()
            self.probe = None

    async def _received(self) -> Event:
        return await self._receive()

    def end(self) -> None:
        """Drops the question that is still open, and what is held."""
        if self.held:
            self.hold(0)
        if self.probe is not None:
            self.probe.cancel()


class OpenCalls:
    """All calls under way over HTTP.

    Args:
        max_message_bytes: Length of a request.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._open: dict[OpenCall, None] = {}
        self.held = 0
        self.max_held = UNFINISHED_MESSAGES * max_message_bytes

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, receive: Receive, deadline: float | None) -> OpenCall:
        """Adds the call that the current task answers, until `end`."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - called by a coroutine
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
            call.leave()

    async def watch(self) -> None:
        """Looks at the calls again and again, until cancelled. Calls that end soon are never looked at."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            now = time.monotonic()
            calls = list(self._open)
            for call in calls:
                call.look(now)
            waiting = [call for call in calls if call.read]
            waiting.sort(key=lambda call: call.looked_at)
            for call in waiting[:PROBES]:
                call.looked_at = now
                call.ask()
