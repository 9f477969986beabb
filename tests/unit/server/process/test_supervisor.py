"""The supervisor of the workers, as far as it goes before the first of them runs."""

import asyncio
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from medserve_server.config import Settings, SettingsError
from medserve_server.process.workers import Supervisor

REFUSED = errno.EAGAIN
HOST = "127.77.0.1"
"""No other test listens on it, so that a port that is free stays free."""


@pytest.fixture(autouse=True)
def _keep_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor installs a hook for the failures of all threads of its process."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


class Starts:
    """The workers that were to be started."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.at_each: Callable[[], object] = list


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    """Of an operating system that has no room for another process."""
    made = Starts()

    def refuse(_: object, command: list[str], *__: object, **___: object) -> None:
        if "--concurrency" in command or "medserve_server.process.worker" in command:  # not what looks for libraries
            made.commands.append(command)
            made.at_each()
        raise OSError(REFUSED, os.strerror(REFUSED))

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(subprocess.Popen, "__del__", lambda _: None)  # of an object that was not made
    return made


def show(*_: object) -> None:
    pytest.fail("no worker is ready")


def settings(**others: object) -> Settings:
    ports = {"port": 0, "http_port": 0, "metrics_port": 0}
    return Settings.model_validate({"host": HOST, "transport": "grpcio", "workers": 2, **ports, **others})


def run(supervisor: Supervisor) -> None:
    """Runs a supervisor until it ends."""
    asyncio.run(supervisor.run())


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening.getsockname()[1]


def is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> Sequence[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_explicit_control_needs_a_single_worker() -> None:
    with pytest.raises(SettingsError, match="would reach only one of the --workers; use poll, or one worker"):
        Supervisor(settings(model_control="explicit"), show)
    Supervisor(settings(model_control="explicit", workers=1), show)
    Supervisor(settings(model_control="poll"), show)


def test_before_a_worker_is_ready_the_models_are_being_loaded() -> None:
    assert Supervisor(settings(), show).why_not_ready() == "loading models"


@pytest.mark.parametrize("name", ["port", "http_port", "metrics_port"])
def test_a_port_that_is_taken_is_named_with_its_flag_before_anything_starts(
    starts: Starts, taken: int, name: str
) -> None:
    ports = dict(zip(("port", "http_port", "metrics_port"), free_ports(3), strict=True)) | {name: taken}
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(OSError, match=f"cannot listen on {HOST}:{taken}.* if it is in use, .* with {flag}"):
        run(Supervisor(settings(**ports), show))
    assert starts.commands == []
    assert all(is_free(port) for port in ports.values() if port != taken), "the others are given back"


def test_with_envoy_rest_needs_no_separate_port(starts: Starts, taken: int) -> None:
    with pytest.raises(ChildProcessError):
        run(Supervisor(settings(transport="envoy", http_port=taken), show))
    assert starts.commands


def test_a_token_file_that_is_missing_is_named_before_anything_starts(starts: Starts, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with pytest.raises(SettingsError, match=f"{tmp_path}/token: No such file"):
        run(Supervisor(settings(port=port, metrics_token_file=tmp_path / "token"), show))
    assert starts.commands == []
    assert is_free(port)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_worker_that_can_not_be_started_at_all_ends_the_server_with_the_reason(
    starts: Starts, workers: int, transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ports = dict(zip(("port", "http_port", "metrics_port"), free_ports(3), strict=True))
    supervisor = Supervisor(settings(workers=workers, transport=transport, **ports), show)
    with pytest.raises(ChildProcessError, match=os.strerror(REFUSED)):
        run(supervisor)
    assert 1 <= len(starts.commands) <= workers, "it is not tried again"
    assert supervisor.why_not_ready() == "stopping"
    assert all(map(is_free, ports.values()))
    assert list(tmp_path.iterdir()) == [], "nothing is left of Envoy's files"


def test_the_ports_are_kept_from_others_while_workers_start(starts: Starts) -> None:
    ports = dict(zip(("port", "http_port", "metrics_port"), free_ports(3), strict=True))
    free: list[bool] = []
    starts.at_each = lambda: free.extend(map(is_free, ports.values()))
    with pytest.raises(ChildProcessError):
        run(Supervisor(settings(workers=1, **ports), show))
    assert free == [False] * 3
