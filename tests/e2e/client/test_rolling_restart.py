"""No call of a client that knows two servers fails while they are restarted in turn under load."""

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from medserve_client import Client
from servers.server_process import free_port, running_server
from waiting import wait_until

RESTARTS = int(os.environ.get("MEDSERVE_RESTARTS", "2"))


class Callers:
    """Threads that classify images, each with its client, and record failures."""

    def __init__(self, target: str) -> None:
        self.answered = 0
        self.failures: list[BaseException] = []
        self._target = target
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        image = np.zeros((28, 28), np.uint8)
        with Client(self._target) as client:
            while not self._over.is_set():
                try:
                    client.classify(image, "chest-xray")
                except Exception as error:  # noqa: BLE001 - any failure is reported by the test
                    self.failures.append(error)
                else:
                    with self._lock:
                        self.answered += 1
                time.sleep(0.005)  # leaves CPU time to the servers


def test_no_call_fails_during_a_rolling_restart(transport: str, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    flags = ("--transport", transport, "--drain-delay", "0.3")
    with ExitStack() as stack:
        servers = [stack.enter_context(ExitStack()) for _ in ports]
        for server, port in zip(servers, ports, strict=True):
            server.enter_context(running_server(*flags, "--port", str(port), log=tmp_path / f"{port}.log"))
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        with Callers(f"ipv4:{addresses}") as callers:
            for restart in range(RESTARTS):
                server, port = servers[restart % 2], ports[restart % 2]
                server.close()  # sends SIGTERM and requires exit status 0
                answered = callers.answered
                wait_until(lambda answered=answered: callers.answered > answered)  # type: ignore[misc]  # by the other
                server.enter_context(running_server(*flags, "--port", str(port), log=tmp_path / f"{port}.log"))
    assert callers.failures == []
