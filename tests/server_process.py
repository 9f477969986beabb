"""Starts the real server as a process of its own, on free ports."""

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
from urllib.request import urlopen

from waiting import PATIENCE

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ServerProcess:
    process: subprocess.Popen[str]
    target: str
    metrics_url: str

    def workers(self) -> set[int]:
        """Process ids of those that answer calls: the workers of a supervisor, or the process itself."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return set(map(int, children)) or {pid}

    def metrics(self) -> str:
        with urlopen(self.metrics_url, timeout=PATIENCE) as response:  # noqa: S310 - our own http address
            text: str = response.read().decode()
        return text

    def sample(self, line_start: str) -> float:
        """The value of the one series whose line begins so."""
        (line,) = [line for line in self.metrics().splitlines() if line.startswith(line_start)]
        return float(line.rsplit(" ", 1)[1])

    def total(self, family: str) -> float:
        """The sum of a family's series over their labels."""
        samples = re.findall(rf"^{family}(?:\{{.*\}})? (.+)$", self.metrics(), re.MULTILINE)
        return sum(map(float, samples))


TRANSPORTS = ("grpcio", "envoy")

Patch = Sequence[str]
"""A module of tests/patches that changes the server, and what its `apply` is given; nothing for the server as it is."""


def command(*flags: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "medserve_server", "--port", "0", "--metrics-port", "0", *flags]


def free_port() -> int:
    """A port that nobody listens on right now, for a server that has to come back on the same one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def environment(patch: Patch = ()) -> dict[str, str]:
    """The environment of a server that is patched, and has no settings but its flags."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("MEDSERVE_")}
    if patch:
        paths = [str(REPOSITORY / "tests/patches"), *filter(None, [found.get("PYTHONPATH")])]
        found |= {"PYTHONPATH": os.pathsep.join(paths), "SERVER_PATCH": json.dumps(patch)}
    return found


def refusal(*flags: str, patch: Patch = ()) -> str:
    """What a server says that refuses to start."""
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
) -> Iterator[ServerProcess]:
    """Serves until the block ends; the server has to stop cleanly on SIGTERM, or to have ended with `status`."""
    with (
        (log or Path(os.devnull)).open("w") as errors,
        subprocess.Popen(
            command(*flags),
            cwd=REPOSITORY,
            env=environment(patch),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0 if own_group else None,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            addresses: dict[str, str] = {}
            for line in process.stdout:  # it tells its addresses once every model is ready
                words = line.split()
                if len(words) == 2 and words[0] in {"gRPC", "metrics"}:
                    addresses[words[0]] = words[1]
                if len(addresses) == 2:
                    break
            yield ServerProcess(process, addresses["gRPC"], addresses["metrics"])
        finally:
            process.terminate()
    assert process.returncode == status
