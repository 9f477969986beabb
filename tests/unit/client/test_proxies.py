"""Proxies from the environment: never used for loopback and link-local targets."""

from collections.abc import Iterator

import pytest

from medserve_client import AsyncClient, Client, HealthStatus, InferenceError
from medserve_client.loadtest.server_metrics import scrape
from servers.recording_proxy import VARIABLES, RecordingProxy, recording_proxy

NEAR = [
    "127.0.0.1:{port}",
    "127.8.8.8:{port}",
    "localhost:{port}",
    "LocalHost.:{port}",
    "medserve.localhost:{port}",
    "dns:///localhost:{port}",
    "dns:127.0.0.1:{port}",
    "dns:///%6cocalhost:{port}",
    "ipv4:127.0.0.1:{port}",
    "ipv4:127.0.0.1:{port},127.0.0.1:{port}",
    "ipv4:127.0.0.1:{port},192.0.2.1:{port}",
    "127.0.0.1",
    "127.1:{port}",
    "0.0.0.0:{port}",
    "[::1]:{port}",
    "[::ffff:127.0.0.1]:{port}",
    "[::]:{port}",
    "ipv6:[::1]:{port}",
    "ipv6:%5B::1%5D:{port}",
    "169.254.1.1:{port}",
    "[fe80::1]:{port}",
    "[fe80::1%25lo]:{port}",
    "unix:/nowhere/medserve",
    "unix:///nowhere/medserve",
    "unix-abstract:medserve",
]
FAR = ["medserve.example:9", "dns:///medserve.example:9", "localhost.example:9", "127.0.0.1.example:9", "192.0.2.1:9"]


@pytest.fixture
def proxy() -> Iterator[RecordingProxy]:
    with recording_proxy() as started:
        yield started


def attempt(target: str) -> str:
    """Returns the outcome of a call that may fail."""
    with Client(target, timeout=0.5) as client:
        try:
            return client.health().name
        except InferenceError as error:
            return error.code.name


async def attempt_async(target: str) -> str:
    async with AsyncClient(target, timeout=0.5) as client:
        try:
            return (await client.health()).name
        except InferenceError as error:
            return error.code.name


@pytest.fixture
def everywhere(proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch) -> RecordingProxy:
    """A proxy named by every environment variable."""
    for name, value in proxy.environment().items():
        monkeypatch.setenv(name, value)
    return proxy


@pytest.mark.parametrize("target", NEAR)
async def test_local_targets_are_called_without_a_proxy(clinic: str, everywhere: RecordingProxy, target: str) -> None:
    port = clinic.rpartition(":")[2]
    attempt(target.format(port=port))
    await attempt_async(target.format(port=port))
    assert everywhere.requests == []


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_proxy_variables_do_not_affect_local_servers(
    clinic: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, variable: str, host: str
) -> None:
    monkeypatch.setenv(variable, f"http://{proxy.address}")
    target = clinic.replace("127.0.0.1", host)
    with Client(target) as client:
        assert client.health() is HealthStatus.SERVING
    async with AsyncClient(target) as client_:
        assert await client_.health() is HealthStatus.SERVING
    assert proxy.requests == []


@pytest.mark.parametrize("variable", ["grpc_proxy", "http_proxy", "https_proxy"])
@pytest.mark.parametrize("target", FAR)
async def test_remote_targets_are_called_through_the_proxy_of_the_environment(
    proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, variable: str, target: str
) -> None:
    monkeypatch.setenv(variable, f"http://{proxy.address}")
    expected = f"CONNECT {target.removeprefix('dns:///')} HTTP/1.1"
    attempt(target)
    assert expected in proxy.requests
    proxy.requests.clear()
    await attempt_async(target)
    assert expected in proxy.requests


def test_local_metrics_are_scraped_without_a_proxy(everywhere: RecordingProxy) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        with pytest.raises(OSError, match=r"refused|assign"):
            scrape(f"http://{host}:1/metrics", "lungs")
    assert everywhere.requests == []
    with pytest.raises(OSError, match="502"):
        scrape("http://medserve.example/metrics", "lungs")
    assert everywhere.requests == ["GET http://medserve.example/metrics HTTP/1.1"]
