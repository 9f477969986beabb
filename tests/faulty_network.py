"""A network between client and server that can be slow, trickle, swallow everything or break."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Network:
    """Carries connections to a server; its faults may change at any time."""

    target: tuple[str, int]
    delay: float = 0.0
    """Seconds that each piece waits, either way."""
    piece: int = 65536
    """Most bytes that go through at once; 1 trickles."""
    swallows: bool = False
    """Takes what is sent and passes nothing on: a half-open connection."""
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where a client connects to."""
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def cut(self) -> None:
        """Breaks every connection; new ones can be made."""
        for pair in self._pairs:
            for end in pair:
                _close(end)
        self._pairs.clear()

    def serve(self) -> None:
        """Takes connections until the listener is closed."""
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
        with contextlib.suppress(OSError):  # cut
            while data := source.recv(self.piece):
                time.sleep(self.delay)
                if not self.swallows:
                    sink.sendall(data)
        _close(source)
        _close(sink)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was faster
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def network(target: str) -> Iterator[Network]:
    """A network to the server at `target`, without faults."""
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
