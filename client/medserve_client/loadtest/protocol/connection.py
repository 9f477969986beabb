"""Base class of connections to a server, plaintext or TLS, for any protocol."""

import errno
import socket
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from medserve_client.loadtest.protocol.encryption import Encryption

# Callback for the end of a request: receives the time passed to `request` and the gRPC status.
Done = Callable[[float, str], None]
# Queued requests: due time and bytes of each.
Waiting = deque[tuple[float, bytes]]

_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and protocol of a server.

    Attributes:
        host: name or address.
        port: port number.
        protocol: ALPN protocol ID: "h2" or "http/1.1".
        context: TLS context; None for plaintext.
    """

    host: str
    port: int
    protocol: str
    context: ssl.SSLContext | None = None

    @property
    def authority(self) -> str:
        """The authority component of HTTP."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection(ABC):
    """A non-blocking connection: its owner polls the socket and calls `flush` and `receive`.

    Requests are queued while it connects and while the server accepts no more.
    """

    def __init__(self, endpoint: Endpoint, timeout: float, done: Done, waiting: Waiting) -> None:
        """Does not connect yet.

        Args:
            endpoint: server endpoint.
            timeout: seconds after which a request ends with DEADLINE_EXCEEDED.
            done: called at the end of each request.
            waiting: queue of requests.
        """
        self._endpoint, self._timeout = endpoint, timeout
        self._done, self._waiting = done, waiting
        self._encryption: Encryption | None = None
        self._out, self._sealed = bytearray(), bytearray()
        self.socket: socket.socket
        self.open = False
        """Whether it has a socket, possibly one that is still connecting."""
        self.ready = False
        """Whether it accepts requests."""
        self.was_ready = False
        """Whether it has been ready since the last `connect`."""
        self._connected = False
        self.failure = "the connection was refused or lost"
        """Why it was last closed."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether it can send a request immediately."""

    @property
    @abstractmethod
    def sample(self) -> bytes:
        """The response to the first request; empty until it arrives."""

    @property
    def unsent(self) -> bool:
        """Whether there is something to do as soon as the socket is writable."""
        if not self._connected or self._sealed:
            return True
        return bool(self._out) and (self._encryption is None or self._encryption.established)

    @abstractmethod
    def request(self, started: float, message: bytes) -> None:
        """Queues a request for `flush` to send."""

    @abstractmethod
    def expire(self, now: float) -> None:
        """Ends the requests that have exceeded the timeout."""

    @abstractmethod
    def _start_over(self) -> None:
        """Resets the state for a new connection and writes the connection preface, if any, to `_out`."""

    @abstractmethod
    def _receive(self, data: bytes) -> None:
        """Processes decrypted bytes from the server."""

    @abstractmethod
    def _take_all(self) -> list[float]:
        """Removes all requests in flight and returns their due times."""

    @abstractmethod
    def _opened(self) -> None:
        """Called when application data can be exchanged."""

    def _become_ready(self) -> None:
        self.ready = self.was_ready = True

    def connect(self) -> None:
        """Starts to connect.

        Raises:
            OSError: the host name cannot be resolved.
        """
        host, port = self._endpoint.host, self._endpoint.port
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.socket = socket.socket(family, kind, protocol)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)  # a refused connection is detected on the first read
        self.open, self.ready, self.was_ready, self._connected = True, False, False, False
        if (context := self._endpoint.context) is not None:
            self._encryption = Encryption(context, host, self._endpoint.protocol)
        self._out, self._sealed = bytearray(), bytearray()
        self._start_over()

    def close(self, status: str = "CANCELLED", failure: str = "the connection was refused or lost") -> None:
        """Closes the connection and ends the requests in flight with this status; queued requests remain queued."""
        if self.open:
            self.socket.close()
            self.open = self.ready = False
            self.failure = failure
            for started in self._take_all():
                self._done(started, status)

    def flush(self) -> None:
        """Sends as much as the socket accepts."""
        try:
            if not self._connected:
                self.socket.getpeername()  # raises until it is connected
                self._connected = True
                if self._encryption is None:
                    self._opened()
            if self._encryption is None:
                del self._out[: self.socket.send(self._out)]
                return
            self._sealed += self._encryption.encrypt(self._out)
            del self._sealed[: self.socket.send(self._sealed)]
        except (BlockingIOError, InterruptedError):
            pass
        except ssl.SSLError as error:
            self._fail(error)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return
            self._out, self._sealed = bytearray(), bytearray()
            self.receive()  # the server may have sent an error before it closed
            self.close("UNAVAILABLE")

    def receive(self) -> None:
        """Reads available data and calls `done` for every request that ended."""
        if not self.open:
            return
        try:
            data = self.socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end_of_data()
        elif self._encryption is None:
            self._receive(data)
        else:
            self._decrypt(self._encryption, data)

    def _decrypt(self, encryption: Encryption, data: bytes) -> None:
        was_established = encryption.established
        try:
            plain = encryption.decrypt(data)
            self._sealed += encryption.encrypt(self._out)  # replies of the handshake or a key update
        except ssl.SSLError as error:
            self._fail(error)
            return
        if encryption.established and not was_established:
            self._opened()
        if plain:
            self._receive(plain)

    def _fail(self, error: ssl.SSLError) -> None:
        """Closes after a TLS error; sends the alert to the server if the socket accepts it."""
        if self._encryption is not None:
            with suppress(OSError):
                self.socket.send(self._encryption.alert())
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        self.close("UNAVAILABLE", f"TLS: {reason or error}")

    def _end_of_data(self) -> None:
        self.close("UNAVAILABLE")
