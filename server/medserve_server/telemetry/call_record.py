"""What is noted of a request for the access log and for traces: names, counts and times, never what it holds."""

import re
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType

import grpc

from medserve_server.security.auth import Metadata
from medserve_server.supervise import report
from medserve_server.telemetry.metrics import status_of

MAX_ID_LENGTH = 128
# version-trace-parent-flags: https://www.w3.org/TR/trace-context/#traceparent-header-field-values
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(slots=True)
class CallRecord:
    """One call, or one request of a stream. Times are on the clock of `time.monotonic`; 0: it did not come so far."""

    observers: "Sequence[Observer]"
    method: str
    """Path of the gRPC method."""
    client: str
    """The token's name, else the address."""
    traceparent: str
    """Of the caller; empty where it sent none that is well-formed."""
    of_stream: bool = False
    """Whether it is one request of a stream, whose call has a record of its own."""
    request_id: str = ""
    """Text of the client, cut."""
    model: str = ""
    version: str = ""
    sha256: str = ""
    rows: int = 0
    """That were computed, with those for reasons."""
    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    began: float = field(default_factory=time.monotonic)
    queued: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    ended: float = 0.0

    def asked(self, request_id: str) -> None:
        """Notes what the client calls the request."""
        self.request_id = request_id[:MAX_ID_LENGTH]

    def found(self, model: str, version: str, sha256: str) -> None:
        """Notes the model that answers; the name of one that is not served is a client's text, and left out."""
        self.model, self.version, self.sha256 = model, version, sha256

    def ran(self, started: float, finished: float) -> None:
        """Notes a run of the model; the first and the last count where a request needs several."""
        self.started = self.started or started
        self.finished = finished

    def end(self, code: grpc.StatusCode) -> None:
        """Notes the end, and tells whoever observes."""
        self.code = code
        self.ended = time.monotonic()
        for observe in self.observers:
            try:
                observe(self)
            except Exception as error:  # noqa: BLE001 - reported; the call ends as it would have
                report("observer", error)

    def stages(self) -> list[tuple[str, float, float]]:
        """Name, start and end of each stage that a request for a model came to; none of another call."""
        if not self.model:
            return []
        starts = {"decode": self.began, "queue": self.queued, "compute": self.started, "encode": self.finished}
        reached = [(name, start) for name, start in starts.items() if start]
        ends = [start for _, start in reached[1:]] + [self.ended]
        return [(name, start, end) for (name, start), end in zip(reached, ends, strict=True)]

    def in_stream(self) -> "CallRecord":
        """The record of a request of the stream that this is the call of."""
        return CallRecord(self.observers, self.method, self.client, self.traceparent, of_stream=True)

    def __enter__(self) -> None:
        """Nothing is left to begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(status_of(error))


Observer = Callable[[CallRecord], None]

CALL_RECORD: ContextVar[CallRecord | None] = ContextVar("CALL_RECORD", default=None)
"""Of the call that is being answered; None where nobody observes."""


def follow(observers: Sequence[Observer], method: str, client: str, metadata: Metadata) -> CallRecord:
    """Begins the record of a call that came in."""
    given = [value for key, value in metadata if key == "traceparent"]
    value = given[0] if len(given) == 1 and isinstance(given[0], str) else ""
    return CallRecord(observers, method, client, value if TRACEPARENT.fullmatch(value) else "")
