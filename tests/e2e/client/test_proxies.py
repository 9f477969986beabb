"""Clients, command and load test bypass the proxies in environment variables if the server is on this machine."""

from collections.abc import Iterator

import numpy as np
import pytest

from medserve_client import AsyncClient, Client
from medserve_client.cli import main
from samples.patient import PATIENT
from servers.recording_proxy import RecordingProxy, recording_proxy
from servers.server_process import ServerProcess

PICTURE = np.zeros((28, 28), np.uint8)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingProxy]:
    with recording_proxy() as started:
        for name, value in started.environment().items():
            monkeypatch.setenv(name, value)
        yield started


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_clients_bypass_the_proxy(server: ServerProcess, proxy: RecordingProxy, host: str) -> None:
    target = server.target.replace("127.0.0.1", host)
    with Client(target) as client:
        assert client.predict_risk(PATIENT, "breast-cancer-risk").results
        assert len(list(client.classify_stream([PICTURE] * 2, "chest-xray"))) == 2
    async with AsyncClient(target) as client_:
        assert (await client_.predict_risk(PATIENT, "breast-cancer-risk")).results
        assert len([one async for one in client_.classify_stream([PICTURE] * 2, "chest-xray")]) == 2
    assert proxy.requests == []


@pytest.mark.parametrize("protocol", [[], ["--http", "binary"]], ids=["grpc", "http"])
def test_load_test_bypasses_the_proxy(
    server: ServerProcess, proxy: RecordingProxy, capsys: pytest.CaptureFixture[str], protocol: list[str]
) -> None:
    target = server.http_url.removeprefix("http://").rstrip("/") if protocol else server.target
    load = ("loadtest", "--model", "chest-xray", "--duration", "0.3", "--warmup", "0.1", *protocol)
    assert main(["--server", target, *load, "--metrics-url", server.metrics_url]) == 0
    assert "no metrics" not in capsys.readouterr().err
    assert proxy.requests == []


def test_commands_bypass_the_proxy(server: ServerProcess, proxy: RecordingProxy) -> None:
    assert main(["--server", server.target, "models"]) == 0
    assert proxy.requests == []
