"""A connection to a server, plain or encrypted, whatever it speaks."""

import errno
import socket
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from medserve_client.loadtest.protocol.encryption import Encryption

# What is called when a request has ended: with the time that `request` was given, and its gRPC status.
Done = Callable[[float, str], None]
# Requests that wait: when each was due, and its bytes.
Waiting = deque[tuple[float, bytes]]

_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is, and how it is spoken to.

    Attributes:
        host: name or address.
        port: its port.
        protocol: its name for ALPN: "h2" or "http/1.1".
        context: encrypts; None for plain text.
    """

    host: str
    port: int
    protocol: str
    context: ssl.SSLContext | None = None

    @property
    def authority(self) -> str:
        """As HTTP names it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection(ABC):
    """One connection; it neither blocks nor waits: its owner asks the socket, and calls.

    Requests that it can't take yet wait: while it connects, or while the server takes no more.
    """

    def __init__(self, endpoint: Endpoint, timeout: float, done: Done, waiting: Waiting) -> None:
        """Does not connect yet.

        Args:
            endpoint: of the server.
            timeout: seconds after which a request ends as DEADLINE_EXCEEDED.
            done: called at the end of each request.
            waiting: where requests wait.
        """
        self._endpoint, self._timeout = endpoint, timeout
        self._done, self._waiting = done, waiting
        self._encryption: Encryption | None = None
        self._out, self._sealed = bytearray(), bytearray()
        self.socket: socket.socket
        self.open = False
        """Whether it has a socket, be it one that still connects."""
        self.ready = False
        """Whether it takes requests."""
        self.was_ready = False
        """Whether it has been since `connect`."""
        self._connected = False
        self.failure = "the connection was refused or lost"
        """Why it was closed last."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether it can send a request at once."""

    @property
    @abstractmethod
    def sample(self) -> bytes:
        """The answer to a first request; empty before there is one."""

    @property
    def unsent(self) -> bool:
        """Whether there is something to do as soon as the socket takes bytes."""
        if not self._connected or self._sealed:
            return True
        return bool(self._out) and (self._encryption is None or self._encryption.established)

    @abstractmethod
    def request(self, started: float, message: bytes) -> None:
        """Takes a request. `flush` sends it."""

    @abstractmethod
    def expire(self, now: float) -> None:
        """Ends what was started longer ago than the timeout."""

    @abstractmethod
    def _start_over(self) -> None:
        """Forgets the connection before this one, and puts what is sent first into `_out`."""

    @abstractmethod
    def _receive(self, data: bytes) -> None:
        """Takes plain bytes of the server."""

    @abstractmethod
    def _take_all(self) -> list[float]:
        """Removes what is in flight, and tells when each request was due."""

    @abstractmethod
    def _opened(self) -> None:
        """Is called when plain bytes can be exchanged."""

    def _become_ready(self) -> None:
        self.ready = self.was_ready = True

    def connect(self) -> None:
        """Starts to connect.

        Raises:
            OSError: the name is unknown.
        """
        host, port = self._endpoint.host, self._endpoint.port
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.socket = socket.socket(family, kind, protocol)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)  # a refusal shows when it is read from
        self.open, self.ready, self.was_ready, self._connected = True, False, False, False
        if (context := self._endpoint.context) is not None:
            self._encryption = Encryption(context, host, self._endpoint.protocol)
        self._out, self._sealed = bytearray(), bytearray()
        self._start_over()

    def close(self, status: str = "CANCELLED", failure: str = "the connection was refused or lost") -> None:
        """Ends the connection, and what is in flight with this status. What waits goes on waiting."""
        if self.open:
            self.socket.close()
            self.open = self.ready = False
            self.failure = failure
            for started in self._take_all():
                self._done(started, status)

    def flush(self) -> None:
        """Sends as much as the socket takes."""
        try:
            if not self._connected:
                self.socket.getpeername()  # fails until it is connected
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
            self.receive()  # the server may have told why before it closed
            self.close("UNAVAILABLE")

    def receive(self) -> None:
        """Reads what has come, and tells of every request that ended."""
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
            self._sealed += encryption.encrypt(self._out)  # what the handshake, or a new key, answers
        except ssl.SSLError as error:
            self._fail(error)
            return
        if encryption.established and not was_established:
            self._opened()
        if plain:
            self._receive(plain)

    def _fail(self, error: ssl.SSLError) -> None:
        """Closes after an error of TLS; the server is told, in an alert, as far as the socket takes it."""
        if self._encryption is not None:
            with suppress(OSError):
                self.socket.send(self._encryption.alert())
        told = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        self.close("UNAVAILABLE", f"TLS: {told or error}")

    def _end_of_data(self) -> None:
        self.close("UNAVAILABLE")
