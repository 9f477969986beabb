"""The servers under comparison: commands, best settings and protocols."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
MODELS = ROOT / "build" / "benchmark" / "models"
MODEL = MODELS / "chest-xray" / "1" / "model.onnx"

CERTIFICATE = ROOT / "build" / "benchmark" / "certificate.pem"
KEY = ROOT / "build" / "benchmark" / "key.pem"

Protocol = Literal["grpc", "json", "octets", "base64"]
"""The Open Inference Protocol over gRPC or as JSON over HTTP/1.1, raw pixels as the body, or base64 in JSON."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server with one set of settings."""

    name: str
    command: Sequence[str]
    protocol: Protocol = "grpc"
    path: str = ""
    """Path of the HTTP request."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""
    streams: bool = False
    tls: bool = False
    """Whether connections are encrypted, with `CERTIFICATE`."""
    tried: str = ""
    """Settings that were searched, for the report; the best are in `settings`."""
    peer: str = ""
    """Name of the folder in peers/ and of the environment; empty for medserve."""
    package: str = ""
    """Package whose version is reported."""
    patience: float = 30.0
    """Timeout in seconds for becoming ready."""

    @property
    def python(self) -> Path:
        """Interpreter of the server's environment."""
        return peer_environment(self.peer) / "bin" / "python" if self.peer else Path(sys.executable)

    def start_with(self, port: int, overrides: Mapping[str, str] | None = None) -> tuple[list[str], dict[str, str]]:
        """Returns the command and the environment variables for listening on this port."""
        places = {
            "python": str(self.python),
            "bin": str(self.python.parent),
            "peers": str(PEERS),
            "root": str(ROOT),
            "port": str(port),
            "next_port": str(port + 1),
            "third_port": str(port + 2),
        }
        values = {"BENCH_MODEL": str(MODEL), "BENCH_PORT": str(port), **self.settings, **(overrides or {})}
        return (
            [part.format(**places) for part in self.command],
            {name: value.format(**places) for name, value in values.items()},
        )


INFER = "/v2/models/chest-xray/infer"


def peer_environment(name: str) -> Path:
    """Returns the virtual environment of a peer, which `environments.py` builds."""
    return ROOT / f".venv-bench-{name}"


PEER_SERVERS = (
    Server(
        "triton",
        ("{python}", "{peers}/triton/start.py"),
        settings={
            "BENCH_THREADS": "1",
            "BENCH_MAX_BATCH": "64",
            "BENCH_INSTANCES": "1",
            "BENCH_PREFERRED": "",
            "BENCH_DELAY_US": "0",
        },
        streams=True,
        tried="Tried: 1 and 2 instances, 1 and 2 threads, a delay of 0 and 500 µs, preferred batches of any size and "
        "32. A delay halves the throughput of one request in flight; 2 threads cost more than they gain.",
        peer="triton",
        package="nvidia-pytriton",
    ),
    Server(
        "triton, 2 instances",
        ("{python}", "{peers}/triton/start.py"),
        settings={
            "BENCH_THREADS": "1",
            "BENCH_MAX_BATCH": "64",
            "BENCH_INSTANCES": "2",
            "BENCH_PREFERRED": "",
            "BENCH_DELAY_US": "0",
        },
        tried="The same with a second instance, which was sometimes better and sometimes worse in the search, so both "
        "are shown. No stream: with 64 in flight on one, tritonserver crashed (signal 11) in each of three attempts.",
        peer="triton",
        package="nvidia-pytriton",
    ),
    Server(
        "triton, REST",
        ("{python}", "{peers}/triton/start.py"),
        protocol="json",
        path=INFER,
        settings={
            "BENCH_THREADS": "1",
            "BENCH_MAX_BATCH": "64",
            "BENCH_INSTANCES": "1",
            "BENCH_PREFERRED": "",
            "BENCH_DELAY_US": "0",
            "BENCH_HTTP": "1",
        },
        tried="As over gRPC.",
        peer="triton",
        package="nvidia-pytriton",
    ),
    Server(
        "mlserver",
        ("{bin}/mlserver", "start", "{peers}/mlserver"),
        settings={
            "BENCH_THREADS": "1",
            "PYTHONPATH": "{peers}/mlserver",
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_GRPC_PORT": "{port}",
            "MLSERVER_HTTP_PORT": "{next_port}",
            "MLSERVER_METRICS_PORT": "{third_port}",
            "MLSERVER_DEBUG": "false",
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_MODEL_NAME": "chest-xray",
            "MLSERVER_MODEL_IMPLEMENTATION": "runtime.ChestXray",
            "MLSERVER_MODEL_MAX_BATCH_SIZE": "0",
            "MLSERVER_MODEL_MAX_BATCH_TIME": "0",
        },
        tried="Tried: no batching, and batches of 16 and 64 within 0.5, 1, 5 and 10 ms; 1 and 2 threads; inference "
        "in a separate process (which needs uvloop before 0.22). Both cost more than they gain here.",
        peer="mlserver",
        package="mlserver",
    ),
    Server(
        "kserve",
        ("{python}", "{peers}/kserve/server.py"),
        settings={"BENCH_THREADS": "1", "PYTHONPATH": "{peers}/loopback"},
        tried="Tried: 1 and 2 threads. The SDK does not batch requests; KServe's agent, a second process, does.",
        peer="kserve",
        package="kserve",
    ),
    Server(
        "litserve",
        ("{python}", "{peers}/litserve/server.py"),
        protocol="octets",
        path="/predict",
        settings={
            "BENCH_THREADS": "1",
            "BENCH_MAX_BATCH": "64",
            "BENCH_DELAY_US": "500",
            "BENCH_INSTANCES": "1",
            "BENCH_FRONTS": "2",
            "BENCH_FAST_QUEUE": "0",
        },
        tried="Tried: a delay of 500 and 2000 µs, 1 and 2 HTTP processes, both of its queues.",
        peer="litserve",
        package="litserve",
    ),
    Server(
        "bentoml",
        (
            *("{bin}/bentoml", "serve", "service:ChestXray", "--working-dir", "{peers}/bentoml"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        protocol="base64",
        path="/predict",
        settings={
            "BENCH_THREADS": "1",
            "BENCH_MAX_BATCH": "64",
            "BENCH_LATENCY_MS": "1000",
            "BENCH_INSTANCES": "1",
            "BENTOML_DO_NOT_TRACK": "1",
        },
        tried="Tried: a latency of 10, 100 and 1000 ms, 1 and 2 processes. It rejects requests that would exceed that "
        "latency with 503, which happens at 16 in flight with 10 and 100 ms.",
        peer="bentoml",
        package="bentoml",
    ),
    Server(
        "ray",
        ("{python}", "{peers}/ray/server.py"),
        settings={
            "BENCH_THREADS": "1",
            "BENCH_MAX_BATCH": "64",
            "BENCH_DELAY_US": "0",
            "BENCH_INSTANCES": "1",
            "PYTHONPATH": "{peers}/loopback:{root}/proto",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
        tried="Tried: a delay of 0 and 2000 µs, 1 and 2 replicas.",
        peer="ray",
        package="ray",
        patience=90.0,
    ),
)


def medserve_servers(models: Path = MODELS) -> list[Server]:
    """Returns medserve with each transport that this installation supports, serving these models."""
    program = str(Path(sys.executable).parent / "medserve-server")
    usage = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    command = (program, "--models", str(models), "--port", "{port}", "--http-port", "0", "--metrics-port", "0")
    if "--transport" not in usage:
        return [Server("medserve", command, streams=True)]
    servers = [Server("medserve grpcio", (*command, "--transport", "grpcio"), streams=True)]
    if "envoy" in usage:
        servers.append(Server("medserve envoy", (*command, "--transport", "envoy"), streams=True))
    return servers


def variants_of(server: Server) -> list[Server]:
    """Returns variants of a medserve server: over TLS, and as JSON over HTTP/1.1."""
    encrypted = (*server.command, "--tls-certificate", str(CERTIFICATE), "--tls-key", str(KEY))
    return [
        replace(server, name=f"{server.name}, TLS", command=encrypted, streams=False, tls=True),
        replace(server, name=f"{server.name}, REST", streams=False, protocol="json", path=INFER),
    ]


def make_certificate() -> None:
    """Writes a self-signed certificate for 127.0.0.1 and its key if they are missing; needs openssl."""
    if CERTIFICATE.is_file() and KEY.is_file():
        return
    CERTIFICATE.parent.mkdir(parents=True, exist_ok=True)
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(KEY), "-out", str(CERTIFICATE))
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "365", *names, *files)
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
