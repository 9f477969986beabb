"""Call records for the access log and traces: names, counts and times, but never the contents of requests."""

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
    """One call, or one request of a stream. Times are on the clock of `time.monotonic`; 0 for stages not reached."""

    observers: "Sequence[Observer]"
    method: str
    """Path of the gRPC method."""
    client: str
    """Name of the client's token, or its address without tokens."""
    traceparent: str
    """The client's traceparent; empty if it sent none or a malformed one."""
    of_stream: bool = False
    """Whether it is one request of a stream; the call has a separate record."""
    request_id: str = ""
    """ID set by the client, truncated."""
    model: str = ""
    version: str = ""
    sha256: str = ""
    rows: int = 0
    """Number of computed rows, including those for reasons."""
    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    began: float = field(default_factory=time.monotonic)
    queued: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    ended: float = 0.0

    def asked(self, request_id: str) -> None:
        """Records the client's request ID."""
        self.request_id = request_id[:MAX_ID_LENGTH]

    def found(self, model: str, version: str, sha256: str) -> None:
        """Records the model; not called for unknown models, whose names are arbitrary text from the client."""
        self.model, self.version, self.sha256 = model, version, sha256

    def waits(self, rows: int, since: float) -> None:
        """Records that rows wait for the model; with several runs, adds the rows and keeps the first start."""
        self.rows += rows
        self.queued = self.queued or since

    def ran(self, started: float, finished: float) -> None:
        """Records a model run; with several runs, keeps the start of the first and the end of the last."""
        self.started = self.started or started
        self.finished = finished

    def end(self, code: grpc.StatusCode) -> None:
        """Records the end of the call and notifies the observers."""
        self.code = code
        self.ended = time.monotonic()
        for observe in self.observers:
            try:
                observe(self)
            except Exception as error:  # noqa: BLE001 - reported; must not affect the call
                report("observer", error)

    def stages(self) -> list[tuple[str, float, float]]:
        """Returns name, start and end of each stage that a request reached; empty for calls without a model."""
        if not self.model:
            return []
        starts = {"decode": self.began, "queue": self.queued, "compute": self.started, "encode": self.finished}
        reached = [(name, start) for name, start in starts.items() if start]
        ends = [start for _, start in reached[1:]] + [self.ended]
        return [(name, start, end) for (name, start), end in zip(reached, ends, strict=True)]

    def in_stream(self) -> "CallRecord":
        """Returns a new record for one request of this streaming call."""
        return CallRecord(self.observers, self.method, self.client, self.traceparent, of_stream=True)

    def __enter__(self) -> None:
        """Does nothing: the record has already started."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(status_of(error))


Observer = Callable[[CallRecord], None]

CALL_RECORD: ContextVar[CallRecord | None] = ContextVar("CALL_RECORD", default=None)
"""Record of the current call; None without observers."""


def follow(observers: Sequence[Observer], method: str, client: str, metadata: Metadata) -> CallRecord:
    """Starts the record of an incoming call."""
    given = [value for key, value in metadata if key == "traceparent"]
    value = given[0] if len(given) == 1 and isinstance(given[0], str) else ""
    return CallRecord(observers, method, client, value if TRACEPARENT.fullmatch(value) else "")
