"""Starts and stops servers, and measures CPU time and memory of all their processes."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MARK = "MEDSERVE_BENCHMARK"
"""An environment variable that a server's processes inherit, and by which they are identified.

Parents and process groups do not identify them, since Ray's processes leave both.
"""
TICKS = os.sysconf("SC_CLK_TCK")
GRACE = 15.0


@dataclass(frozen=True, slots=True)
class Started:
    """A server that is ready."""

    mark: str
    """Value of the environment variable of its processes."""
    ready_after: float
    """Seconds from its start to its first response."""


def cpu_seconds(mark: str) -> float:
    """Returns user plus system time of all processes with this mark and of their terminated, reaped children."""
    return sum(_cpu_seconds(pid) for pid in marked_processes(mark))


def resident_mib(mark: str) -> float:
    """Returns the total proportional set size of the processes with this mark, which counts shared memory once."""
    total = 0
    for pid in marked_processes(mark):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # the process has just terminated
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def marked_processes(mark: str) -> list[int]:
    """Returns the ids of the running processes with this mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # the process has just terminated, or belongs to another user
            continue
    return found


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, ready: Callable[[], bool], patience: float
) -> Iterator[Started]:
    """Runs a server for the duration of the block.

    Raises:
        RuntimeError: The server terminated, or was not ready in `patience` seconds; the message quotes the end of its
            log.
    """
    mark = uuid.uuid4().hex
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the commands are from this repository
            command,
            env={**os.environ, **environment, MARK: mark},
            cwd=log.parent,  # some servers create folders in the working directory
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(process, ready, log, patience)
            yield Started(mark, time.monotonic() - start)
        finally:
            _end(process, mark)


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not ready():
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            why = f"ended with {ended}" if ended is not None else f"was not ready within {patience:.0f} s"
            raise RuntimeError(f"the server {why}; its log ends: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Sends SIGTERM to the server and, after a grace period, SIGKILL to its remaining processes."""
    process.terminate()
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and (process.poll() is None or marked_processes(mark)):
        time.sleep(0.1)
    for pid in marked_processes(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(GRACE)


def _cpu_seconds(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # the process has just terminated, and its time is in its parent's
        return 0.0
    # The name, in brackets, may contain spaces. After it, fields 12 to 15 are utime, stime, cutime and cstime.
    user, system, children_user, children_system = stat.rpartition(")")[2].split()[11:15]
    return (int(user) + int(system) + int(children_user) + int(children_system)) / TICKS
