"""A minimal REST client."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from waiting import PATIENCE

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Returns the message of an Open Inference Protocol error."""
        assert self.headers["content-type"] == "application/json"
        text = self.json["error"]
        assert isinstance(text, str)
        return text

    @property
    def violations(self) -> dict[str, str]:
        """Returns descriptions by field from an error's google.rpc.BadRequest."""
        (detail,) = self.json["error"]["details"]
        assert detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
        return {entry.get("field", ""): entry["description"] for entry in detail["fieldViolations"]}


@dataclass(frozen=True)
class RestClient:
    """Sends each request over a new connection."""

    url: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None = None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:  # noqa: ANN401
        """Sends a request; a body that is neither bytes nor None is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {**JSON, **headers}
        address = urlsplit(self.url).netloc
        connection = (
            HTTPConnection(address, timeout=PATIENCE)
            if self.tls is None
            else HTTPSConnection(address, timeout=PATIENCE, context=self.tls)
        )
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = b"", **headers: str) -> Reply:  # noqa: ANN401
        return self.ask("POST", path, body, **headers)

    def infer(self, model: str, *inputs: dict[str, Any], **members: Any) -> Reply:  # noqa: ANN401
        return self.post(f"/v2/models/{model}/infer", {"inputs": list(inputs), **members})


def tensor(datatype: str, shape: list[int], data: Any, name: str = "x", **members: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **members}
