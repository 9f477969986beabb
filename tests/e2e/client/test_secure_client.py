"""Both clients and the command against a server with TLS and tokens; loadtest with and without TLS."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medserve_client import AsyncClient, Client, PermissionDeniedError, Tls, UnauthenticatedError
from medserve_client.cli import main
from medserve_server.security.auth import new_token
from samples.certificates import Authority
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

PICTURE = np.zeros((28, 28), np.uint8)


@dataclass
class Secret:
    token: str
    file: Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secure")
    authority = Authority("hospital")
    (folder / "ca.pem").write_bytes(authority.pem)
    authority.issue().write(folder / "server.pem", folder / "server.key")
    return folder


@pytest.fixture(scope="module")
def ward(folder: Path) -> Secret:
    token, line = new_token("ward", "infer,metadata")
    (folder / "tokens").write_text(line)
    (folder / "ward.token").write_text(token + "\n")
    return Secret(token, folder / "ward.token")


@pytest.fixture(scope="module")
def secure(folder: Path, ward: Secret) -> Iterator[ServerProcess]:
    assert ward
    flags = ("--tls-certificate", "server.pem", "--tls-key", "server.key", "--tokens", "tokens")
    named = [flag if flag.startswith("--") else str(folder / flag) for flag in flags]
    with running_server(*named) as server:
        yield server


def test_client(secure: ServerProcess, folder: Path, ward: Secret) -> None:
    with Client(secure.target, tls=Tls(folder / "ca.pem"), token=ward.token) as client:
        assert client.classify(PICTURE, "chest-xray").results
        assert len(list(client.classify_stream([PICTURE] * 3, "chest-xray"))) == 3
    with Client(secure.target, tls=Tls(folder / "ca.pem")) as client, pytest.raises(UnauthenticatedError):
        client.classify(PICTURE, "chest-xray")


THREADS = """
import pathlib, sys, threading
from medserve_client import Client, Tls

token = pathlib.Path(sys.argv[3]).read_text().strip()
with Client(sys.argv[1], tls=Tls(sys.argv[2]), token=token) as client:
    client.models()
    print([thread.name for thread in threading.enumerate() if thread.name.startswith("Dummy")])
"""


def test_grpc_runs_no_python_in_its_threads(secure: ServerProcess, folder: Path, ward: Secret) -> None:
    """Otherwise a program can hang forever: `Channel.close` waits for such threads and blocks all others."""
    arguments = [secure.target, str(folder / "ca.pem"), str(ward.file)]
    program = [sys.executable, "-c", THREADS, *arguments]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


async def test_async_client(secure: ServerProcess, folder: Path, ward: Secret) -> None:
    async with AsyncClient(secure.target, tls=Tls(folder / "ca.pem"), token=ward.token) as client:
        assert (await client.classify(PICTURE, "chest-xray")).results
        assert [one async for one in client.classify_stream([PICTURE] * 3, "chest-xray")]
    async with AsyncClient(secure.target, tls=Tls(folder / "ca.pem"), token="x" * 43) as client:
        with pytest.raises(UnauthenticatedError):
            await client.models()


def test_command(secure: ServerProcess, folder: Path, ward: Secret, capsys: pytest.CaptureFixture[str]) -> None:
    connection = ["--server", secure.target, "--ca", str(folder / "ca.pem")]
    assert main([*connection, "health"]) == 0
    assert main([*connection, "models"]) == 4
    assert "a token is required" in capsys.readouterr().err
    assert main([*connection, "models", "--token-file", str(ward.file)]) == 0
    assert ward.token not in "".join(capsys.readouterr())


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_loadtest_sends_the_token(transport: str, folder: Path, ward: Secret, tmp_path: Path, encrypted: bool) -> None:
    if encrypted and transport == "native":
        pytest.skip("native has no TLS")
    tls = ["--tls-certificate", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")] * encrypted
    trust = ["--ca", str(folder / "ca.pem")] * encrypted
    with running_server("--transport", transport, "--tokens", str(folder / "tokens"), *tls) as server:
        load = ("loadtest", "--duration", "0.3", "--warmup", "0.1", "--model", "chest-xray")
        arguments = ["--server", server.target, *load, *trust, "--json", str(tmp_path / "run.json")]
        flags = ["--metrics-url", server.metrics_url]
        assert main([*arguments, *flags]) == 4
        assert main([*arguments, *flags, "--token-file", str(ward.file)]) == 0
        assert main([*arguments, *flags, "--token-file", str(ward.file), "--mode", "stream"]) == 0
    whole = json.loads((tmp_path / "run.json").read_text())
    assert whole["tls"] is encrypted
    (run,) = whole["runs"]
    assert run["errors"] == {}


def is_known(client: Client) -> bool:
    try:
        return bool(client.models())
    except UnauthenticatedError:
        return False


def test_missing_scope_is_named(secure: ServerProcess, folder: Path, ward: Secret) -> None:
    token, line = new_token("reader", "metadata")
    (folder / "tokens.new").write_text((folder / "tokens").read_text() + "\n" + line)
    (folder / "tokens.new").replace(folder / "tokens")
    with Client(secure.target, tls=Tls(folder / "ca.pem"), token=token) as client:
        wait_until(lambda: is_known(client))
        with pytest.raises(PermissionDeniedError, match="lacks the scope infer"):
            client.classify(PICTURE, "chest-xray")
    assert ward
