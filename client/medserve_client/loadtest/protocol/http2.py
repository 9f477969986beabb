"""gRPC calls over one HTTP/2 connection (RFC 9113), with minimal work per call.

The grpc package uses 70 to 200 µs of CPU time per call, more than an efficient server. All calls of a load test are
alike: one method, the same headers, payloads serialized in advance, responses that are not parsed. The subset of
HTTP/2 that they need takes half of that CPU time with one call in flight, and a sixth with 64.
"""

import struct
from collections import deque
from collections.abc import Callable

from medserve_client.channel import DEFAULT_MAX_MESSAGE_BYTES
from medserve_client.loadtest.protocol import wire
from medserve_client.loadtest.protocol.connection import Connection, Done, Endpoint
from medserve_client.loadtest.protocol.hpack import HeaderError, call_status, request_headers

# Returns the gRPC status of one serialized stream response.
Outcome = Callable[[bytes], str]

_LARGEST_BLOCK = 1 << 16


class GrpcConnection(Connection):
    """A connection that multiplexes many unary calls, or carries one streaming call."""

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        timeout: float,
        done: Done,
        outcome: Outcome | None = None,
        token: str | None = None,
    ) -> None:
        """Does not connect yet.

        Args:
            endpoint: server endpoint.
            path: method path, e.g. "/medserve.v1.PatientRisk/Predict".
            timeout: seconds after which a request ends with DEADLINE_EXCEEDED.
            done: called at the end of each request.
            outcome: None for unary calls; otherwise all requests are messages of one stream, and it returns the
                status of each response.
            token: bearer token sent with each call.
        """
        super().__init__(endpoint, timeout, done, deque())
        self._headers = request_headers(endpoint.authority, path, None if outcome else timeout, token)
        self._streaming, self._outcome = outcome is not None, outcome or (lambda _: "OK")
        self._sample = bytearray()  # with gRPC's five-byte prefix

    def _start_over(self) -> None:
        self._in = b""
        self._calls: dict[int, tuple[float, bytes]] = {}  # due time and message of each unary call
        self._refusals: dict[int, str] = {}  # status of calls with an HTTP error, until their response ends
        self._sent: deque[float] = deque()  # due times of the messages of the stream
        self._answer = bytearray()  # the part of the stream's next response received until now
        self._sample.clear()
        self._stream = 0
        self._next_stream = 1
        self._block, self._next_block = self._headers
        self._head, self._head_flags, self._head_stream = b"", 0, 0  # of headers that CONTINUATION frames complete
        self._leaving = False  # the server has sent GOAWAY
        self._uploads: dict[int, wire.Upload] = {}
        self._window = self._initial_window = wire.DEFAULT_WINDOW
        self._max_frame, self._max_streams = wire.DEFAULT_FRAME, 2**31
        self._received = self._received_by_stream = 0
        self._out += wire.HELLO

    def _opened(self) -> None:
        """Waits for the server's settings."""

    @property
    def idle(self) -> bool:
        """Whether it can send a request immediately."""
        return self.ready and len(self._calls) < self._max_streams and not self._waiting

    @property
    def sample(self) -> bytes:
        """The response to the first request."""
        return bytes(self._sample[5:])

    def _take_all(self) -> list[float]:
        ended = [*(due for due, _ in self._calls.values()), *self._sent]
        self._calls, self._sent = {}, deque()
        return ended

    def request(self, started: float, message: bytes) -> None:
        """Queues a request, given its message with gRPC's prefix, for `flush` to send."""
        if self.idle:
            self._start(started, message)
        else:
            self._waiting.append((started, message))

    def _start(self, started: float, message: bytes) -> None:
        if not self._streaming:
            stream = self._begin_stream()
            self._calls[stream] = started, message
            size = len(message)
            if size <= self._max_frame and size <= self._window and size <= self._initial_window:
                self._window -= size
                self._out += wire.FRAME.pack(size >> 8, size & 255, wire.DATA, wire.END_STREAM, stream) + message
            else:
                self._uploads[stream] = wire.Upload(self._initial_window, wire.END_STREAM, bytearray(message))
                self._pump()
            return
        if not self._stream:
            self._stream, self._received_by_stream = self._begin_stream(), 0
            self._answer.clear()
            self._uploads = {self._stream: wire.Upload(self._initial_window, 0)}
        self._sent.append(started)
        self._uploads[self._stream].rest += message
        self._pump()

    def _begin_stream(self) -> int:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        block, self._block = self._block, self._next_block
        self._out += wire.FRAME.pack(len(block) >> 8, len(block) & 255, wire.HEADERS, wire.END_HEADERS, stream) + block
        return stream

    def _pump(self) -> None:
        """Sends as much of every stream as flow control allows."""
        for stream, upload in list(self._uploads.items()):
            while upload.rest and (size := min(len(upload.rest), self._max_frame, self._window, upload.window)) > 0:
                self._window -= size
                upload.window -= size
                flags = upload.last_flags if size == len(upload.rest) else 0
                self._write(wire.DATA, flags, stream, upload.rest[:size])
                del upload.rest[:size]
            if not upload.rest and upload.last_flags:
                del self._uploads[stream]

    def _write(self, kind: int, flags: int, stream: int, payload: bytes | bytearray) -> None:
        self._out += wire.FRAME.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream)
        self._out += payload

    def _receive(self, data: bytes) -> None:
        data = self._in + data if self._in else data
        place, end = 0, len(data)
        try:
            while end - place >= wire.FRAME.size and self.open:
                high, low, kind, flags, stream = wire.FRAME.unpack_from(data, place)
                if (size := high << 8 | low) > wire.DEFAULT_FRAME:
                    raise wire.ProtocolError(f"a frame has {size} bytes")
                after = place + wire.FRAME.size + size
                if after > end:
                    break
                self._frame(kind, flags, stream & wire.LARGEST_STREAM, data[place + wire.FRAME.size : after])
                place = after
        except (HeaderError, wire.ProtocolError, struct.error) as error:
            self.close("INTERNAL", f"the server violates HTTP/2: {error}")
            return
        self._in = data[place:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._head_stream and (kind != wire.CONTINUATION or stream != self._head_stream):
            raise wire.ProtocolError("a frame interrupts a header block")
        if kind == wire.HEADERS:
            if flags & (wire.PADDED | wire.PRIORITY):
                payload = wire.header_block(payload, flags)
            if flags & wire.END_HEADERS:
                self._headers_received(stream, payload, flags)
            else:
                self._head, self._head_flags, self._head_stream = payload, flags, stream
        elif kind == wire.DATA:
            self._count_received(len(payload))
            if flags & wire.PADDED:
                payload = wire.unpadded(payload, flags)
            if stream == self._stream:
                self._answers(payload)
            elif stream == 1 and not self._streaming and len(self._sample) < DEFAULT_MAX_MESSAGE_BYTES:
                self._sample += payload
            if flags & wire.END_STREAM:
                self._finish(stream, None)  # ended without trailers, so without a gRPC status
        else:
            self._control(kind, flags, stream, payload)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case wire.WINDOW_UPDATE:
                self._widen(stream, int.from_bytes(payload) & wire.LARGEST_WINDOW)
            case wire.SETTINGS if not flags & wire.ACK:
                self._set(wire.settings(payload))
            case wire.PING if not flags & wire.ACK:
                self._write(wire.PING, wire.ACK, 0, payload)
            case wire.RST_STREAM:
                self._end(stream, wire.RESET.get(int.from_bytes(payload), "INTERNAL"))
            case wire.CONTINUATION:
                self._continue(payload, flags, stream)
            case wire.GOAWAY:
                self._go_away(int.from_bytes(payload[:4]) & wire.LARGEST_STREAM)
            case wire.PUSH_PROMISE:
                raise wire.ProtocolError("it pushes, although the client disables push")

    def _continue(self, part: bytes, flags: int, stream: int) -> None:
        """Processes a CONTINUATION frame of a header block."""
        if not self._head_stream:
            raise wire.ProtocolError("a CONTINUATION frame follows no HEADERS frame")
        self._head += part
        if len(self._head) > _LARGEST_BLOCK:
            raise wire.ProtocolError(f"headers have more than {_LARGEST_BLOCK} bytes")
        if flags & wire.END_HEADERS:
            head, self._head, self._head_stream = self._head, b"", 0
            self._headers_received(stream, head, self._head_flags)

    def _headers_received(self, stream: int, block: bytes, flags: int) -> None:
        """Processes headers, or the trailers that end a call with its status."""
        status = call_status(block)
        if flags & wire.END_STREAM:
            self._finish(stream, status)
        elif status is not None and (stream in self._calls or stream == self._stream):
            # The error page of another server follows. Some servers treat cancelling it as an attack.
            self._refusals[stream] = status

    def _finish(self, stream: int, status: str | None) -> None:
        """Ends a call whose response is complete; the unsent rest of its request is discarded."""
        end = self._cancel if stream in self._uploads else self._end
        end(stream, status or self._refusals.get(stream, "UNKNOWN"))

    def _cancel(self, stream: int, status: str) -> None:
        self._write(wire.RST_STREAM, 0, stream, struct.pack(">I", wire.CANCEL))
        self._end(stream, status)

    def _end(self, stream: int, status: str) -> None:
        self._uploads.pop(stream, None)
        self._refusals.pop(stream, None)
        if stream == self._stream and stream:
            self._stream = 0
            # Unanswered requests have failed, even if the stream as a whole has not.
            unanswered, self._sent = self._sent, deque()
            for started in unanswered:
                self._done(started, "UNKNOWN" if status == "OK" else status)
        elif stream in self._calls:
            self._done(self._calls.pop(stream)[0], status)
        self._go_on()

    def _go_on(self) -> None:
        """Starts queued requests, or closes the connection after GOAWAY once no requests are in flight."""
        while self.ready and self._waiting and len(self._calls) < self._max_streams:
            self._start(*self._waiting.popleft())
        if self._leaving and not self._calls and not self._sent:
            self.close("UNAVAILABLE", "the server is stopping")

    def _answers(self, data: bytes) -> None:
        self._answer += data
        for message in wire.split_messages(self._answer, DEFAULT_MAX_MESSAGE_BYTES):
            self._sample = self._sample or bytearray(message)
            if self._sent:
                self._done(self._sent.popleft(), self._outcome(message[5:]))

    def _count_received(self, size: int) -> None:
        """Extends the server's flow-control windows well before they are exhausted."""
        self._received += size
        self._received_by_stream += size
        if self._received > wire.LARGEST_WINDOW // 2:
            self._write(wire.WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received))
            self._received = 0
        if self._stream and self._received_by_stream > wire.LARGEST_WINDOW // 2:
            self._write(wire.WINDOW_UPDATE, 0, self._stream, struct.pack(">I", self._received_by_stream))
            self._received_by_stream = 0

    def _widen(self, stream: int, size: int) -> None:
        if not stream:
            self._window += size
        elif stream in self._uploads:
            self._uploads[stream].window += size
        self._pump()

    def _set(self, settings: dict[int, int]) -> None:
        self._max_streams = settings.get(wire.MAX_STREAMS, self._max_streams)
        self._max_frame = settings.get(wire.MAX_FRAME, self._max_frame)
        if (window := settings.get(wire.INITIAL_WINDOW)) is not None:
            for upload in self._uploads.values():
                upload.window += window - self._initial_window
            self._initial_window = window
        if settings.get(wire.TABLE_SIZE, wire.DEFAULT_TABLE_SIZE) < wire.DEFAULT_TABLE_SIZE:
            self._block, self._next_block = b"\x20" + self._headers[0], self._headers[0]  # a table of size 0
        self._write(wire.SETTINGS, wire.ACK, 0, b"")
        if not self._leaving:
            self._become_ready()
        self._pump()
        self._go_on()

    def _go_away(self, last: int) -> None:
        """Handles GOAWAY: accepted calls are completed, and the others are queued for the next connection."""
        self._leaving, self.ready = True, False
        refused = [stream for stream in self._calls if stream > last]
        self._waiting.extendleft(self._calls.pop(stream) for stream in reversed(refused))
        for stream in refused:
            self._uploads.pop(stream, None)
        if self._stream > last:
            self._end(self._stream, "UNAVAILABLE")
        elif (upload := self._uploads.get(self._stream)) is not None:
            self._end_upload(upload)
        self._go_on()

    def _end_upload(self, upload: wire.Upload) -> None:
        """Half-closes the stream after the messages that are still to be sent."""
        upload.last_flags = wire.END_STREAM
        if not upload.rest:
            self._write(wire.DATA, wire.END_STREAM, self._stream, b"")
            del self._uploads[self._stream]

    def expire(self, now: float) -> None:
        """Ends the requests that have exceeded the timeout."""
        limit = now - self._timeout
        while self._waiting and self._waiting[0][0] <= limit:
            self._done(self._waiting.popleft()[0], "DEADLINE_EXCEEDED")
        while (stream := next(iter(self._calls), 0)) and self._calls[stream][0] <= limit:
            self._cancel(stream, "DEADLINE_EXCEEDED")
        if self._sent and self._sent[0] <= limit:  # responses are ordered: later ones cannot arrive either
            self._cancel(self._stream, "DEADLINE_EXCEEDED")
