"""Records the connections and name lookups of a process and its children, from Python and native code."""

import contextlib
import os
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

# Python runs it at startup in every process that finds it on its path.
HOOK = """
import os, sys

def note(event, arguments):
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = arguments[1]
    elif event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}:
        address = arguments[0]
    else:
        return
    host = address[0] if isinstance(address, tuple) else address
    with open(os.environ["NETWORK_WATCH"], "a") as file:
        file.write(f"{event} {host}\\n")

sys.addaudithook(note)
"""
HERE = {"127.0.0.1", "::1", "0.0.0.0", "::", "localhost", "None", ""}


class NetworkWatch:
    """Makes Python processes started later report their connections, and monitors the sockets of some processes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)  # the commands set it
        self._contacted = folder / "asked"
        self._contacted.touch()
        (folder / "sitecustomize.py").write_text(HOOK)
        monkeypatch.setenv("NETWORK_WATCH", str(self._contacted))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        self._remotes: set[str] = set()
        self.looks = 0

    @property
    def strangers(self) -> set[str]:
        """Returns all hosts that were contacted or looked up, except this machine."""
        lines = self._contacted.read_text().splitlines()
        asked = {line for line in lines if (host := line.partition(" ")[2]) not in HERE and not host.startswith("/")}
        return asked | self._remotes

    @contextlib.contextmanager
    def looking_at(self, process: int) -> Iterator[None]:
        """Continuously polls the sockets of a process and its children."""
        over = threading.Event()

        def look() -> None:
            while not self.looks or not over.wait(0.05):
                for one in (process, *_children(process)):
                    with contextlib.suppress(OSError):  # it may have exited
                        self._remotes.update(_remotes(Path(f"/proc/{one}")))
                self.looks += 1

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _children(process: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from _children(int(child))


def _remotes(process: Path) -> Iterator[str]:
    """Returns the non-local remote addresses of a process's sockets (proc_pid_net(5): words in host byte order)."""
    inodes = set()
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # it may be closed
            target = str(entry.readlink())
            if target.startswith("socket:["):
                inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    if not inodes:  # the tables of a busy machine are long
        return
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in (process / "net" / kind).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[9] not in inodes:
                continue
            words = bytes.fromhex(columns[2].partition(":")[0])
            raw = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
            address = IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
            address = getattr(address, "ipv4_mapped", None) or address
            if not address.is_loopback and not address.is_unspecified:
                yield str(address)
