"""gRPC calls over one HTTP/2 connection (RFC 9113), with as little work for each call as Python can do.

The grpc package costs a process 70 to 200 µs of CPU for each call, more than a good server does. The calls of a
load test are all alike: one method, the same headers, bodies made beforehand, answers that nobody reads. What
they need of HTTP/2 costs half of that with one call in flight, and a sixth with 64.
"""

import socket
import struct
from collections import deque
from collections.abc import Callable

from medserve_client.loadtest import wire
from medserve_client.loadtest.hpack import HeaderError, call_status, request_headers

# What is called when a request has ended: with the time that `request` was given, and its gRPC status.
Done = Callable[[float, str], None]
# Tells the gRPC status of one answer of a stream.
Outcome = Callable[[bytes], str]


class Connection:
    """One connection; it neither blocks nor waits: its owner asks the socket, and calls.

    Requests that it can't take yet wait in it: while it connects, or while the server allows no more streams.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: str,
        timeout: float,
        done: Done,
        outcome: Outcome | None = None,
        token: str | None = None,
    ) -> None:
        """Does not connect yet.

        Args:
            host: name or address.
            port: its port.
            path: of the method, e.g. "/medserve.v1.PatientRisk/Predict".
            timeout: seconds after which a request ends as DEADLINE_EXCEEDED.
            done: called at the end of each request.
            outcome: makes all requests messages of one stream, and tells the status of each answer.
            token: is sent with each call.
        """
        self._address = (host, port)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._headers = request_headers(authority, path, None if outcome else timeout, token)
        self._timeout, self._done = timeout, done
        self._streaming, self._outcome = outcome is not None, outcome or (lambda _: "OK")
        self._waiting: deque[tuple[float, bytes]] = deque()
        self.socket: socket.socket
        self.open = False
        """Whether it has a socket, be it one that still connects."""
        self.ready = False
        """Whether it takes requests."""

    def connect(self) -> None:
        """Starts to connect; it is ready once the server's settings are there.

        Raises:
            OSError: the name is unknown.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)[0]
        self.socket = socket.socket(family, kind, protocol)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)  # a refusal shows when it is read from
        self.open, self.ready = True, False
        self._in = b""
        self._calls: dict[int, float] = {}  # when each was started, of unary calls
        self._sent: deque[float] = deque()  # the same, of the messages of the stream
        self._answer = b""  # what has come of the stream's next answer
        self.sample = b""  # the answer to the first request, with gRPC's prefix of five bytes
        self._stream = 0
        self._next_stream = 1
        self._block, self._next_block = self._headers
        self._head_so_far, self._head_flags = b"", 0
        self._leaving = False  # the server has said that it will close
        self._uploads: dict[int, wire.Upload] = {}
        self._window = self._initial_window = wire.DEFAULT_WINDOW
        self._max_frame, self._max_streams = 16_384, 2**31
        self._received = 0
        self._out = bytearray(wire.HELLO)

    def close(self, status: str = "CANCELLED") -> None:
        """Ends the connection, and what is in flight with this status. What waits goes on waiting."""
        if self.open:
            self.socket.close()
            self.open = self.ready = False
            ended = [*self._calls.values(), *self._sent]
            self._calls, self._sent = {}, deque()
            for started in ended:
                self._done(started, status)

    @property
    def unsent(self) -> bool:
        """Whether bytes are left that the socket did not take."""
        return bool(self._out)

    def request(self, started: float, message: bytes) -> None:
        """Takes a request: the message with gRPC's prefix. `flush` sends it."""
        if self.ready and len(self._calls) < self._max_streams and not self._waiting:
            self._start(started, message)
        else:
            self._waiting.append((started, message))

    def _start(self, started: float, message: bytes) -> None:
        if not self._streaming:
            stream = self._begin_stream()
            self._calls[stream] = started
            size = len(message)
            if size <= self._max_frame and size <= self._window and size <= self._initial_window:
                self._window -= size
                self._out += wire.FRAME.pack(size >> 8, size & 255, wire.DATA, wire.END_STREAM, stream) + message
            else:
                self._uploads[stream] = wire.Upload(self._initial_window, wire.END_STREAM, bytearray(message))
                self._pump()
            return
        if not self._stream:
            self._stream, self._answer = self._begin_stream(), b""
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
        """Sends what flow control lets out, of every stream."""
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

    def flush(self) -> None:
        """Sends as much as the socket takes."""
        try:
            del self._out[: self.socket.send(self._out)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close("UNAVAILABLE")

    def receive(self) -> None:
        """Reads what has come, and tells of every request that ended."""
        try:
            data = self.socket.recv(wire.READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close("UNAVAILABLE")
            return
        data = self._in + data if self._in else data
        place, end = 0, len(data)
        try:
            while end - place >= wire.FRAME.size:
                high, low, kind, flags, stream = wire.FRAME.unpack_from(data, place)
                after = place + wire.FRAME.size + (high << 8 | low)
                if after > end:
                    break
                self._frame(kind, flags, stream, data[place + wire.FRAME.size : after])
                place = after
        except (HeaderError, struct.error):
            self.close("INTERNAL")
            return
        self._in = data[place:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == wire.HEADERS:
            if flags & (wire.PADDED | wire.PRIORITY):
                payload = wire.unpadded(payload, flags)
            self._head(payload, flags, stream)
        elif kind == wire.DATA:
            self._count_received(len(payload))
            if flags & wire.PADDED:
                payload = wire.unpadded(payload, flags)
            if stream == self._stream:
                self._answers(payload)
            elif stream == 1:
                self.sample += payload
            if flags & wire.END_STREAM:
                self._end(stream, "UNKNOWN")  # the trailers tell the status, and there are none
        else:
            self._control(kind, flags, stream, payload)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case wire.WINDOW_UPDATE:
                self._widen(stream, int.from_bytes(payload) & wire.LARGEST_WINDOW)
            case wire.SETTINGS if not flags & wire.ACK:
                self._set(payload)
            case wire.PING if not flags & wire.ACK:
                self._write(wire.PING, wire.ACK, 0, payload)
            case wire.RST_STREAM:
                self._end(stream, wire.RESET.get(int.from_bytes(payload), "INTERNAL"))
            case wire.CONTINUATION:
                self._head(payload, flags, stream)
            case wire.GOAWAY:
                self._go_away(int.from_bytes(payload[:4]) & wire.LARGEST_WINDOW)

    def _head(self, part: bytes, flags: int, stream: int) -> None:
        """Reads headers, or the trailers that end a call and tell its status."""
        if not flags & wire.END_HEADERS or self._head_so_far:
            self._head_so_far += part
            self._head_flags |= flags
            if not flags & wire.END_HEADERS:
                return
            part, flags = self._head_so_far, self._head_flags
            self._head_so_far, self._head_flags = b"", 0
        status = call_status(part)
        if flags & wire.END_STREAM:
            self._end(stream, status or "UNKNOWN")
        elif status is not None:
            self._end(stream, status)

    def _end(self, stream: int, status: str) -> None:
        self._uploads.pop(stream, None)
        if stream == self._stream and stream:
            self._stream = 0
            # What was not answered failed, even where the stream as a whole did not.
            unanswered, self._sent = self._sent, deque()
            for started in unanswered:
                self._done(started, "UNKNOWN" if status == "OK" else status)
        elif stream in self._calls:
            self._done(self._calls.pop(stream), status)
        self._go_on()

    def _go_on(self) -> None:
        """Starts what waited, or closes where the server is leaving."""
        while self.ready and self._waiting and len(self._calls) < self._max_streams:
            self._start(*self._waiting.popleft())
        if self._leaving and not self._calls and not self._sent:
            self.close("UNAVAILABLE")

    def _answers(self, data: bytes) -> None:
        messages, self._answer = wire.split_messages(self._answer + data)
        for message in messages:
            self.sample = self.sample or message
            if self._sent:
                self._done(self._sent.popleft(), self._outcome(message[5:]))

    def _count_received(self, size: int) -> None:
        """Lets the server send more, long before its window is used up."""
        self._received += size
        if self._received > wire.LARGEST_WINDOW // 2:
            for stream in {0, self._stream}:
                self._write(wire.WINDOW_UPDATE, 0, stream, struct.pack(">I", self._received))
            self._received = 0

    def _widen(self, stream: int, size: int) -> None:
        if not stream:
            self._window += size
        elif stream in self._uploads:
            self._uploads[stream].window += size
        self._pump()

    def _set(self, payload: bytes) -> None:
        settings = dict(struct.iter_unpack(">HI", payload))
        self._max_streams = settings.get(wire.MAX_STREAMS, self._max_streams)
        self._max_frame = settings.get(wire.MAX_FRAME, self._max_frame)
        if (window := settings.get(wire.INITIAL_WINDOW)) is not None:
            for upload in self._uploads.values():
                upload.window += window - self._initial_window
            self._initial_window = window
        if settings.get(wire.TABLE_SIZE, wire.DEFAULT_TABLE_SIZE) < wire.DEFAULT_TABLE_SIZE and not self.ready:
            self._block, self._next_block = b"\x20" + self._headers[0], self._headers[0]  # a table of size 0
        self._write(wire.SETTINGS, wire.ACK, 0, b"")
        self.ready = not self._leaving
        self._pump()
        self._go_on()

    def _go_away(self, last: int) -> None:
        """Lets what the server has taken end; the rest is refused."""
        self._leaving, self.ready = True, False
        for stream in [one for one in (*self._calls, self._stream) if one > last]:
            self._end(stream, "UNAVAILABLE")
        self._go_on()

    def expire(self, now: float) -> None:
        """Ends what was started longer ago than the timeout."""
        limit = now - self._timeout
        while self._waiting and self._waiting[0][0] <= limit:
            self._done(self._waiting.popleft()[0], "DEADLINE_EXCEEDED")
        while (stream := next(iter(self._calls), 0)) and self._calls[stream] <= limit:
            self._write(wire.RST_STREAM, 0, stream, struct.pack(">I", wire.CANCEL))
            self._end(stream, "DEADLINE_EXCEEDED")
        if self._sent and self._sent[0] <= limit:  # answers have an order: those behind it can't come either
            self._write(wire.RST_STREAM, 0, self._stream, struct.pack(">I", wire.CANCEL))
            self._end(self._stream, "DEADLINE_EXCEEDED")
