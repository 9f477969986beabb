"""Starts the real server as a separate process, on free ports."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import urlopen

from processes import started
from waiting import PATIENCE, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ServerProcess:
    process: subprocess.Popen[str]
    target: str
    metrics_url: str
    http_url: str
    """URL of REST; empty on a transport without it."""

    def workers(self) -> set[int]:
        """Returns the PIDs of the processes that handle calls: the workers of a supervisor, or the process itself."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return set(map(int, children)) or {pid}

    def metrics(self) -> str:
        with urlopen(self.metrics_url, timeout=PATIENCE) as response:  # noqa: S310 - our own http address
            text: str = response.read().decode()
        return text

    def page(self, path: str) -> tuple[int, str]:
        """Returns status and text of a page on the metrics port."""
        return page(urljoin(self.metrics_url, path))

    def sample(self, line_start: str) -> float:
        """Returns the value of the only series whose line has this prefix."""
        (line,) = [line for line in self.metrics().splitlines() if line.startswith(line_start)]
        return float(line.rsplit(" ", 1)[1])

    def total(self, family: str) -> float:
        """Returns the sum of a metric over its labels."""
        samples = re.findall(rf"^{family}(?:\{{.*\}})? (.+)$", self.metrics(), re.MULTILINE)
        return sum(map(float, samples))


def page(url: str) -> tuple[int, str]:
    """Returns status and text of a page, for any status code."""
    try:
        with urlopen(url, timeout=PATIENCE) as response:  # noqa: S310 - our own http address
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


TRANSPORTS = ("grpcio", "envoy")
OTHER_PORTS = ("--http-port", "0", "--metrics-port", "0")

Patch = Sequence[str]
"""A module of tests/patches that patches the server, and the arguments of its `apply`; empty for no patch."""


def command(*flags: str, python: str = sys.executable) -> list[str]:
    return [python, "-W", "error", "-m", "medserve_server", "--port", "0", *OTHER_PORTS, *flags]


def free_port() -> int:
    """Returns a currently free port, for a server that must be restarted on the same one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def environment(patch: Patch = ()) -> dict[str, str]:
    """Returns the environment of a patched server that reads settings only from its flags."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("MEDSERVE_")}
    if patch:
        paths = [str(REPOSITORY / "tests/patches"), *filter(None, [found.get("PYTHONPATH")])]
        found |= {"PYTHONPATH": os.pathsep.join(paths), "SERVER_PATCH": json.dumps(patch)}
    return found


def refusal(*flags: str, patch: Patch = ()) -> str:
    """Returns the error of a server that refuses to start."""
    ended = subprocess.run(
        command(*flags),
        cwd=REPOSITORY,
        env=environment(patch),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


@contextmanager
def running_server(
    *flags: str,
    log: Path | None = None,
    patch: Patch = (),
    status: int = 0,
    own_group: bool = False,
    folder: Path = REPOSITORY,
    python: str = sys.executable,
) -> Iterator[ServerProcess]:
    """Serves until the block ends; the server must then stop cleanly on SIGTERM, or have exited with `status`."""
    with (
        (log or Path(os.devnull)).open("w") as errors,
        started(
            command(*flags, python=python),
            cwd=folder,
            env=environment(patch),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0 if own_group else None,
        ) as process,
    ):
        try:
            addresses = _addresses_in_log(process, log) if log and "json" in flags else _addresses_in_output(process)
            yield ServerProcess(process, *addresses)
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert process.returncode == status


def _addresses_in_output(process: subprocess.Popen[str]) -> tuple[str, str, str]:
    """Returns the addresses of gRPC, metrics and REST, which are printed once every model is ready."""
    assert process.stdout is not None
    addresses: dict[str, str] = {}
    for line in process.stdout:
        words = line.split()
        if len(words) == 2 and words[0] in {"gRPC", "REST", "metrics"}:
            addresses[words[0]] = words[1]
        if "metrics" in addresses:  # the last
            break
    return addresses["gRPC"], addresses["metrics"], addresses["REST"]


def _addresses_in_log(process: subprocess.Popen[str], log: Path) -> tuple[str, str, str]:
    """Returns the same addresses from a server that writes only JSON log lines."""
    found: list[dict[str, str]] = []

    def started() -> bool:
        lines = [line for line in log.read_text().splitlines() if '"message": "serving"' in line]
        found.extend(json.loads(line) for line in lines)
        return bool(found) or process.poll() is not None

    wait_until(started, "the server to start")
    return found[0]["grpc"], found[0]["metrics"], found[0]["rest"]
