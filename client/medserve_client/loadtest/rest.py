"""Single calls of the Open Inference Protocol over HTTP/1.1, which a load test makes before it starts the load."""

import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import quote

import grpc
from google.rpc.status_pb2 import Status

from medserve_client.channel import DEFAULT_MAX_MESSAGE_BYTES, Tls
from medserve_client.errors import InferenceError, TlsMismatchError, from_status
from medserve_client.loadtest.engine import address
from medserve_client.loadtest.protocol.encryption import client_context
from medserve_client.loadtest.protocol.http1 import STATUS_NAMES
from medserve_client.tls_mismatch import explanation

BINARY_HEADER = "Inference-Header-Content-Length"
"""Header with the length of the JSON that precedes binary tensors, in requests and responses."""
_LONGEST_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Service:
    """Connection settings of a server.

    Attributes:
        target: host:port.
        timeout: timeout of a call in seconds.
        tls: TLS credentials; None for plaintext.
        token: bearer token sent with each call.
    """

    target: str
    timeout: float
    tls: Tls | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input tensor of a model.

    Attributes:
        name: input name.
        datatype: datatype of the Open Inference Protocol, e.g. "FP32".
        shape: dimensions; -1 for a variable one.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


def model_path(model: str, version: str) -> str:
    """Returns the URL path of a model; without a version, the server chooses one."""
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def inputs(service: Service, model: str, version: str) -> list[Tensor]:
    """Fetches the input tensors of a model.

    Raises:
        InferenceError: the server rejects the request or is unreachable.
        ValueError: the response does not follow the protocol.
    """
    _, answer = _call(service, "GET", model_path(model, version))
    metadata = _document(answer)
    try:
        tensors = [Tensor(one["name"], one["datatype"], tuple(one["shape"])) for one in metadata["inputs"]]
    except (KeyError, TypeError):
        tensors = []
    if not tensors or not all(_is_sound(tensor) for tensor in tensors):
        raise ValueError("the server's metadata of the model has no inputs with name, datatype and shape")
    return tensors


def _is_sound(tensor: Tensor) -> bool:
    sizes = all(isinstance(size, int) and size >= -1 for size in tensor.shape)
    return isinstance(tensor.name, str) and isinstance(tensor.datatype, str) and sizes


def infer(service: Service, path: str, body: bytes, headers: Sequence[tuple[str, str]]) -> str:
    """Sends one inference request and returns the model version that answered.

    Raises:
        InferenceError: the server rejects the request or is unreachable.
        ValueError: the response does not follow the protocol.
    """
    received, answer = _call(service, "POST", path, body, headers)
    length = received.get(BINARY_HEADER, "")
    document = _document(answer[: int(length)] if length.isascii() and length.isdigit() else answer)
    outputs = document.get("outputs")
    if not isinstance(outputs, list) or not outputs:
        raise ValueError("the server answered without outputs; nothing can be measured")
    return str(document.get("model_version", ""))


def _document(answer: bytes) -> dict[str, Any]:
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ValueError("the server's response is not a JSON object")  # noqa: TRY004 - not a caller's type error
    return document


def _call(
    service: Service, method: str, path: str, body: bytes | None = None, headers: Sequence[tuple[str, str]] = ()
) -> tuple[HTTPMessage, bytes]:
    """Makes a call and returns the headers and body of the response."""
    credentials = {} if service.token is None else {"Authorization": f"Bearer {service.token}"}
    try:
        connection = _connection(service)
        try:
            connection.request(method, path, body, {**dict(headers), **credentials})
            response = connection.getresponse()
            answer = response.read(DEFAULT_MAX_MESSAGE_BYTES + 1)
        finally:
            connection.close()
    except TimeoutError as error:
        raise _error("DEADLINE_EXCEEDED", "no response within the timeout") from error
    except ssl.SSLCertVerificationError as error:
        raise _error("UNAVAILABLE", f"TLS: {error.verify_message}") from error
    except (OSError, HTTPException) as error:
        if mismatch := explanation(service.target, encrypted=service.tls is not None):
            raise TlsMismatchError(grpc.StatusCode.UNAVAILABLE, mismatch) from error
        raise _error("UNAVAILABLE", str(error) or type(error).__name__) from error
    if len(answer) > DEFAULT_MAX_MESSAGE_BYTES:
        raise _error("RESOURCE_EXHAUSTED", f"the response has more than {DEFAULT_MAX_MESSAGE_BYTES} bytes")
    if response.status != 200:
        raise _error(STATUS_NAMES.get(response.status, "UNKNOWN"), _message(response, answer))
    return response.headers, answer


def _connection(service: Service) -> HTTPConnection:
    host, port = address(service.target)
    if service.tls is None:
        return HTTPConnection(host, port, timeout=service.timeout)
    context = client_context(service.tls, "http/1.1")
    return HTTPSConnection(host, port, timeout=service.timeout, context=context)


def _message(response: HTTPResponse, answer: bytes) -> str:
    """Returns the error message in a response, which the protocol puts in a JSON object."""
    try:
        message = _document(answer).get("error")
    except ValueError:
        message = None
    return message[:_LONGEST_MESSAGE] if isinstance(message, str) else f"HTTP {response.status} {response.reason}"


def _error(status: str, message: str) -> InferenceError:
    code: int = grpc.StatusCode[status].value[0]
    return from_status(Status(code=code, message=message))
