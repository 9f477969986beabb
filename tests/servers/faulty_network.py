"""A TCP proxy between client and server that can delay, throttle, black-hole or break connections."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Network:
    """Forwards connections to a server; its faults may be changed at any time."""

    target: tuple[str, int]
    delay: float = 0.0
    """Delay in seconds of each piece, in either direction."""
    piece: int = 65536
    """Maximum number of bytes forwarded at a time."""
    swallows: bool = False
    """Whether to accept data without forwarding it, as in a half-open connection."""
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Returns the target for clients."""
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def cut(self) -> None:
        """Resets every connection; new ones can be opened."""
        for pair in self._pairs:
            for end in pair:
                _close(end)
        self._pairs.clear()

    def serve(self) -> None:
        """Accepts connections until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            self._pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                thread = threading.Thread(target=self._carry, args=(source, sink), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # reset by `cut`
            while data := source.recv(self.piece):
                time.sleep(self.delay)
                if not self.swallows:
                    sink.sendall(data)
        _close(source)
        _close(sink)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed by the other side
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def network(target: str) -> Iterator[Network]:
    """Opens a proxy to the server at `target`, initially without faults."""
    host, port = target.rsplit(":", 1)
    made = Network((host, int(port)))
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        _close(made.listener)
        made.cut()
        thread.join()
