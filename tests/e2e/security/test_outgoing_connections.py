"""The server opens only connections that a flag requests."""

import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from network_watch import NetworkWatch
from processes import started
from servers.server_process import environment, running_server
from waiting import PATIENCE

# Reserved by RFC 5737 and RFC 2606; no host uses them.
STRANGER, NAME = "192.0.2.1", "stranger.invalid"


def ask(target: str) -> None:
    """Calls several services: typed and tensor APIs, and the model repository."""
    with grpc.insecure_channel(target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(pb.ServerReadyRequest(), timeout=PATIENCE).ready
        assert stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=PATIENCE).models
        for model in ("chest-xray", "breast-cancer-risk"):
            assert stub.ModelMetadata(pb.ModelMetadataRequest(name=model), timeout=PATIENCE).inputs


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_server_opens_no_other_connection(
    transport: str, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = NetworkWatch(tmp_path, monkeypatch)
    flags = ("--transport", transport, "--host", host, "--log-level", "debug", "--model-control", "poll")
    with (
        running_server(*flags, "--access-log", "--poll-interval", "0.2", log=tmp_path / "log") as server,
        watch.looking_at(server.process.pid),
    ):
        ask(server.target.replace("0.0.0.0", "127.0.0.1"))
        assert "medserve_model_ready" in server.metrics()
    assert watch.looks
    assert not watch.strangers


def test_workers_open_no_other_connection(transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = NetworkWatch(tmp_path, monkeypatch)
    flags = ("--transport", transport, "--workers", "2", "--host", "0.0.0.0")
    with running_server(*flags) as server, watch.looking_at(server.process.pid):
        ask(server.target.replace("0.0.0.0", "127.0.0.1"))
    assert not watch.strangers


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        (
            f"import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('{STRANGER}', 9))",
            f"socket.connect {STRANGER}",
        ),
        (f"import socket; socket.getaddrinfo('{NAME}', 80)", f"socket.getaddrinfo {NAME}"),
    ],
)
def test_connections_of_python_code_are_detected(
    code: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = NetworkWatch(tmp_path, monkeypatch)
    subprocess.run(
        [sys.executable, "-c", f"import socket; {code}"],
        env=environment(),
        check=False,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert watch.strangers == {seen}


def test_connections_of_native_code_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's audit hooks do not see system calls of native code."""
    watch = NetworkWatch(tmp_path, monkeypatch)
    code = (
        "import ctypes, socket, struct, sys\n"
        "one = socket.socket(type=socket.SOCK_DGRAM)\n"
        f"address = struct.pack('=HH4s8x', socket.AF_INET, socket.htons(9), socket.inet_aton('{STRANGER}'))\n"
        "failed = ctypes.CDLL(None).connect(one.fileno(), address, len(address))\n"
        "print(failed, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with started(command, env=environment(), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        connected = process.stdout.readline() == "0\n"
        with watch.looking_at(process.pid):
            while watch.looks < 2:
                time.sleep(0.01)
        process.communicate("")
    if not connected:
        pytest.skip("this machine has no network route")
    assert watch.strangers == {STRANGER}
