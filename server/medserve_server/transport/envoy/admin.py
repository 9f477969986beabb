"""Client of Envoy's admin interface on a Unix socket: drains listeners and reads statistics.

https://www.envoyproxy.io/docs/envoy/v1.39.0/operations/admin
"""

import http.client
import json
import socket
from pathlib import Path
from urllib.parse import quote

TIMEOUT = 2.0
"""Timeout of a request, in seconds."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


def drain_listeners(admin: Path) -> None:
    """Sends GOAWAY on all connections; they stay open, and new calls on them are still accepted.

    Raises:
        OSError: Envoy does not respond.
    """
    _request(admin, "POST", "/drain_listeners?graceful&skip_exit")


def counters(admin: Path, names: str) -> dict[str, int]:
    """Returns Envoy's counters and gauges by name.

    Args:
        admin: path of the socket.
        names: regular expression that selects the names.

    Raises:
        OSError: Envoy does not respond.
    """
    found = json.loads(_request(admin, "GET", f"/stats?format=json&filter={quote(names)}"))["stats"]
    return {stat["name"]: stat["value"] for stat in found if "value" in stat}


def _request(admin: Path, method: str, target: str) -> bytes:
    connection = _Connection(admin)
    try:
        connection.request(method, target)
        response = connection.getresponse()
        body = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"Envoy's admin interface: {type(error).__name__}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise OSError(f"Envoy's admin interface responded with status {response.status}")
    return body
