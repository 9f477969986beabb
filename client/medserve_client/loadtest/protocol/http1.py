"""Requests over one persistent HTTP/1.1 connection (RFC 9112), with minimal work per request.

One request is in flight at a time. Response bodies are discarded as they arrive.
"""

from collections.abc import Sequence

from medserve_client.loadtest.protocol.connection import Connection, Done, Endpoint, Waiting
from medserve_client.loadtest.protocol.http_answer import AnswerError, AnswerReader, Head

STATUS_NAMES = {
    200: "OK",
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The gRPC status that each HTTP status is counted as; any other is UNKNOWN."""


class HttpConnection(Connection):
    """A connection with one request in flight at a time; its queue is shared with other connections."""

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        timeout: float,
        done: Done,
        waiting: Waiting,
        headers: Sequence[tuple[str, str]],
        token: str | None = None,
    ) -> None:
        """Does not connect yet.

        Args:
            endpoint: server endpoint.
            path: path of the POST requests.
            timeout: seconds after which a request ends with DEADLINE_EXCEEDED.
            done: called at the end of each request.
            waiting: queue of requests, shared by the connections.
            headers: headers of every request besides Host, Content-Length and Authorization.
            token: bearer token sent with each request.
        """
        super().__init__(endpoint, timeout, done, waiting)
        credentials = [] if token is None else [("Authorization", f"Bearer {token}")]
        lines = [f"{name}: {value}" for name, value in (("Host", endpoint.authority), *headers, *credentials)]
        self._head_of_request = "\r\n".join((f"POST {path} HTTP/1.1", *lines, "Content-Length: ")).encode("ascii")
        self._due: float | None = None
        self._sample: bytearray | None = None  # response body of the first request, once it was sent

    def _start_over(self) -> None:
        self._due = None
        self._answers = AnswerReader()

    def _opened(self) -> None:
        self._become_ready()
        self._go_on()

    @property
    def idle(self) -> bool:
        """Whether it can send a request immediately."""
        return self.ready and self._due is None

    @property
    def sample(self) -> bytes:
        """The body of the response to the first request."""
        return bytes(self._sample or b"")

    def request(self, started: float, message: bytes) -> None:
        """Queues a request, given its body, for `flush` to send."""
        if self.idle:
            self._due = started
            if self._sample is None:
                self._sample = self._answers.kept = bytearray()
            self._out += b"%b%d\r\n\r\n" % (self._head_of_request, len(message))
            self._out += message
        else:
            self._waiting.append((started, message))

    def _go_on(self) -> None:
        if self.idle and self._waiting:
            self.request(*self._waiting.popleft())

    def _take_all(self) -> list[float]:
        ended, self._due = [] if self._due is None else [self._due], None
        return ended

    def expire(self, now: float) -> None:
        """Ends the requests that have exceeded the timeout."""
        limit = now - self._timeout
        while self._waiting and self._waiting[0][0] <= limit:
            self._done(self._waiting.popleft()[0], "DEADLINE_EXCEEDED")
        if self._due is not None and self._due <= limit:
            self.close("DEADLINE_EXCEEDED")  # HTTP/1.1 has no other way to abandon a response

    def _receive(self, data: bytes) -> None:
        if self._due is None:
            self.close("INTERNAL", "the server sent a response without a request")
            return
        try:
            head = self._answers.feed(data)
        except AnswerError as error:
            self.close("INTERNAL", str(error))
            return
        if head is not None:
            self._end(head)

    def _end(self, head: Head) -> None:
        """Ends the request in flight, and the connection if the server does not keep it open."""
        (due,) = self._take_all()
        self._answers.kept = None
        if not head.keeps or self._out or self._sealed:  # also closed if the request was not sent completely
            self.close()
        self._done(due, STATUS_NAMES.get(head.status, "UNKNOWN"))
        self._go_on()

    def _end_of_data(self) -> None:
        if self._due is not None and (head := self._answers.end()) is not None:
            self._end(head)
        else:
            self.close("UNAVAILABLE")
