"""A client with TLS and a server without it, or vice versa: every caller gets a one-line error that explains it."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from calls.loadtest_outcomes import fine
from medserve_client import AsyncClient, Client, Tls, TlsMismatchError, UnavailableError
from medserve_client.cli import main
from medserve_client.loadtest import LoadError, LoadPlan, run
from medserve_client.loadtest.rest import Service, inputs
from samples import onnx_models
from samples.certificates import Authority
from servers.server_process import ServerProcess, free_port, running_server


@dataclass(frozen=True)
class Mismatch:
    """A server, and mismatched TLS settings of clients."""

    server: ServerProcess
    tls: Tls | None

    @property
    def message(self) -> str:
        return "does not use TLS: the server answered in plaintext" if self.tls else "expects TLS but was called in"

    @property
    def rest(self) -> str:
        return re.sub(r"https?://|/$", "", self.server.http_url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mismatch")
    onnx_models.save(folder / "models", "identity", onnx_models.identity("FP32", ["batch", 3]))
    authority = Authority("hospital")
    (folder / "ca.pem").write_bytes(authority.pem)
    authority.issue().write(folder / "server.pem", folder / "server.key")
    return folder


@pytest.fixture(scope="module", params=["plain server", "TLS server", "server of mutual TLS"])
def mismatch(request: pytest.FixtureRequest, folder: Path, transport: str) -> Iterator[Mismatch]:
    files = ("--tls-certificate", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))
    flags = {
        "plain server": (),
        "TLS server": files,
        "server of mutual TLS": (*files, "--tls-client-ca", str(folder / "ca.pem")),
    }[request.param]
    with ExitStack() as stack:
        server = stack.enter_context(
            running_server("--models", str(folder / "models"), "--transport", transport, *flags)
        )
        yield Mismatch(server, None if flags else Tls(folder / "ca.pem"))


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("localhost", None),
        ("ipv4:127.0.0.1", "token"),
    ],
)
async def test_mismatch_is_reported_by_both_clients(mismatch: Mismatch, name: str, token: str | None) -> None:
    target = mismatch.server.target.replace("127.0.0.1", name)
    with Client(target, tls=mismatch.tls, token=token) as client:
        with pytest.raises(TlsMismatchError, match=f"^UNAVAILABLE: {target} {mismatch.message}.*$"):
            client.health()
        with pytest.raises(TlsMismatchError, match=mismatch.message):
            list(client.classify_stream([b"image"], "identity"))
    async with AsyncClient(target, tls=mismatch.tls, token=token) as client_:
        with pytest.raises(TlsMismatchError, match=f"^UNAVAILABLE: {target} {mismatch.message}.*$"):
            await client_.health()
        with pytest.raises(TlsMismatchError, match=mismatch.message):
            [one async for one in client_.classify_stream([b"image"], "identity")]


@pytest.mark.parametrize("protocol", [[], ["--http", "json"]], ids=["grpc", "http"])
def test_mismatch_is_reported_by_the_command_in_one_line(
    mismatch: Mismatch, folder: Path, capsys: pytest.CaptureFixture[str], protocol: list[str]
) -> None:
    trust = ["--ca", str(folder / "ca.pem")] if mismatch.tls else []
    target = mismatch.rest if protocol else mismatch.server.target
    load = ["loadtest", "--model", "identity", *protocol]
    for command in [load] if protocol else [load, ["models"], ["health"]]:
        assert main(["--server", target, *trust, *command]) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"medserve: {target} {mismatch.message}")


@pytest.mark.parametrize("streams", [{}, {"outcome": fine}, {"http_headers": ()}], ids=["unary", "stream", "http"])
def test_mismatch_is_reported_by_the_load_test(mismatch: Mismatch, streams: dict[str, Any]) -> None:
    target = mismatch.rest if "http_headers" in streams else mismatch.server.target
    with pytest.raises(LoadError, match=f"^{target} {mismatch.message}[^\n]*$"):
        run(LoadPlan(target, "/t.T/Any", [b""], concurrency=1, duration=0.3, warmup=0, tls=mismatch.tls, **streams))
    if "http_headers" in streams:
        with pytest.raises(TlsMismatchError, match=mismatch.message):
            inputs(Service(target, 30.0, mismatch.tls), "identity", "")


def test_other_connection_errors_are_not_mismatches(folder: Path) -> None:
    target = f"127.0.0.1:{free_port()}"
    for tls in (None, Tls(folder / "ca.pem")):
        with Client(target, tls=tls) as client, pytest.raises(UnavailableError, match="refused") as caught:
            client.health()
        assert type(caught.value) is UnavailableError
        with pytest.raises(LoadError, match="cannot connect to"):
            run(LoadPlan(target, "/t.T/Unary", [b""], concurrency=1, tls=tls))


def test_untrusted_certificate_is_not_a_mismatch(mismatch: Mismatch, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(Authority("other").pem)
    if mismatch.tls is not None:
        pytest.skip("a server without TLS has no certificate")
    with Client(mismatch.server.target, tls=Tls(tmp_path / "other.pem")) as client:
        with pytest.raises(UnavailableError, match=r"(?i)certificate") as caught:
            client.health()
        assert type(caught.value) is UnavailableError
