"""The load generator over HTTP/2 with TLS, against grpcio's server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from certificates import Authority
from loadtest_outcomes import fine
from medserve_client import Tls
from medserve_client.loadtest import LoadError, LoadPlan, run
from waiting import PATIENCE

pytestmark = pytest.mark.process  # a load is made by processes of their own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority("hospital")
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "other.pem").write_bytes(Authority("another").pem)
    authority.issue().write(folder / "own.pem", folder / "own.key")
    authority.issue("elsewhere.example").write(folder / "elsewhere.pem", folder / "elsewhere.key")
    return folder


def serving(folder: Path, name: str, *, mutual: bool) -> Iterator[str]:
    pair = (folder / f"{name}.key").read_bytes(), (folder / f"{name}.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([pair], (folder / "ca.pem").read_bytes(), require_client_auth=mutual)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        "Stream": grpc.stream_stream_rpc_method_handler(lambda requests, _: requests),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", handlers)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


@pytest.fixture
def mutual(folder: Path) -> Iterator[str]:
    yield from serving(folder, "own", mutual=True)


@pytest.mark.parametrize("streams", [{}, {"outcome": fine}], ids=["unary", "stream"])
@pytest.mark.parametrize("size", [5, 1_000_000])
def test_calls_over_tls_are_complete(mutual: str, folder: Path, streams: dict[str, Any], size: int) -> None:
    payload = np.random.default_rng(0).bytes(size)
    tls = Tls(folder / "ca.pem", folder / "own.pem", folder / "own.key")
    settings = {"concurrency": 4, "connections": 2, "duration": 0.4, "warmup": 0.0, "timeout": PATIENCE} | streams
    method = "/t.T/Stream" if streams else "/t.T/Unary"
    result = run(LoadPlan(mutual, method, [payload], tls=tls, **settings))
    assert not result.errors
    assert result.sent > 0
    assert result.sample == payload


def test_tls_errors_are_explained(mutual: str, folder: Path) -> None:
    def attempt(tls: Tls | None) -> None:
        run(LoadPlan(mutual, "/t.T/Unary", [b""], concurrency=1, duration=0.1, warmup=0, tls=tls))

    with pytest.raises(LoadError, match=r"TLS: unable to get local issuer certificate|TLS: self-signed"):
        attempt(Tls(folder / "other.pem", folder / "own.pem", folder / "own.key"))
    with pytest.raises(LoadError, match=r"TLS: .*CERTIFICATE_REQUIRED|lost"):  # grpcio may close before it has told
        attempt(Tls(folder / "ca.pem"))
    with pytest.raises(LoadError, match="expects TLS but was called in plaintext"):
        attempt(None)


def test_the_host_name_of_the_certificate_is_verified(folder: Path) -> None:
    for target in serving(folder, "elsewhere", mutual=False):
        with pytest.raises(LoadError, match="TLS: IP address mismatch"):
            run(LoadPlan(target, "/t.T/Unary", [b""], concurrency=1, tls=Tls(folder / "ca.pem")))
