"""Envoy's admin interface, on its Unix socket: the drain of its listeners, and its counters.

https://www.envoyproxy.io/docs/envoy/v1.39.0/operations/admin
"""

import http.client
import json
import socket
from pathlib import Path
from urllib.parse import quote

TIMEOUT = 2.0
"""Seconds."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


def drain_listeners(admin: Path) -> None:
    """Tells clients by GOAWAY to go elsewhere; their connections, and new calls on them, go on.

    Raises:
        OSError: Envoy does not answer.
    """
    _ask(admin, "POST", "/drain_listeners?graceful&skip_exit")


def counters(admin: Path, names: str) -> dict[str, int]:
    """Returns Envoy's counters and gauges by name.

    Args:
        admin: Path of the socket.
        names: Regular expression that selects them.

    Raises:
        OSError: Envoy does not answer.
    """
    found = json.loads(_ask(admin, "GET", f"/stats?format=json&filter={quote(names)}"))["stats"]
    return {stat["name"]: stat["value"] for stat in found if "value" in stat}


def _ask(admin: Path, method: str, target: str) -> bytes:
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
        raise OSError(f"Envoy's admin interface answers {response.status}")
    return body
