"""The Open Inference Protocol over HTTP, with Triton's extensions.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_server.errors import InvalidInput
from medserve_server.rest.answer import JSON, Answer
from medserve_server.rest.call import RestCall
from medserve_server.rest.tensors import parse, read_parameters, read_request, write_response

_METHODS = "/inference.GRPCInferenceService/"
JSON_BYTES = b"inference-header-content-length"
"""Header with the length of the JSON in a body with binary data."""

Names = Mapping[str, str]
"""Variables of a path: `name` and `version`, if present."""
Endpoint = Callable[[RestCall, Names], Awaitable[Answer]]


async def infer(call: RestCall, names: Names) -> Answer:
    """Runs an inference."""
    document: dict[str, Any] = {}
    header = call.header(JSON_BYTES)
    json_bytes = int(header) if header.isdecimal() and len(header) < 20 else None

    def read(body: bytes) -> pb.ModelInferRequest:
        request, parsed = read_request(body, _json_bytes(header, len(body)))
        document.update(parsed)
        request.model_name, request.model_version = names["name"], names.get("version", "")
        return request

    parts, head_bytes = write_response(await call.run(_METHODS + "ModelInfer", read, json_bytes), document)
    if head_bytes is None:
        return Answer(parts[0])
    headers = ((b"content-type", b"application/octet-stream"), (JSON_BYTES, str(head_bytes).encode()))
    return Answer(b"".join(parts), headers)


async def live(call: RestCall, _: Names) -> Answer:
    """Returns whether the server is live."""
    response = await call.run(_METHODS + "ServerLive", lambda _: pb.ServerLiveRequest())
    return Answer.json({"live": response.live}, 200 if response.live else 400)


async def ready(call: RestCall, _: Names) -> Answer:
    """Returns whether the server is ready; if not, the status is 4xx, as the protocol requires."""
    response = await call.run(_METHODS + "ServerReady", lambda _: pb.ServerReadyRequest())
    return Answer.json({"ready": response.ready}, 200 if response.ready else 400)


async def model_ready(call: RestCall, names: Names) -> Answer:
    """Returns whether a model is ready."""
    response = await call.run(_METHODS + "ModelReady", lambda _: pb.ModelReadyRequest(**names))
    return Answer.json({**names, "ready": response.ready}, 200 if response.ready else 400)


async def metadata(call: RestCall, _: Names) -> Answer:
    """Returns the metadata of the server."""
    response = await call.run(_METHODS + "ServerMetadata", lambda _: pb.ServerMetadataRequest())
    content = to_json(response)
    content["extensions"].append("binary_tensor_data")
    return Answer.json(content)


async def model_metadata(call: RestCall, names: Names) -> Answer:
    """Returns the metadata of a model, with its tensors."""
    return Answer.json(to_json(await call.run(_METHODS + "ModelMetadata", lambda _: pb.ModelMetadataRequest(**names))))


async def model_config(call: RestCall, names: Names) -> Answer:
    """Returns a model's configuration in Triton's format."""
    response = await call.run(_METHODS + "ModelConfig", lambda _: pb.ModelConfigRequest(**names))
    return Answer.json(to_json(response.config))


async def statistics(call: RestCall, names: Names) -> Answer:
    """Returns the inference counts and durations of one model or of all models."""
    response = await call.run(_METHODS + "ModelStatistics", lambda _: pb.ModelStatisticsRequest(**names))
    return Answer.json(to_json(response))


async def index(call: RestCall, _: Names) -> Answer:
    """Lists the model repository."""

    def read(body: bytes) -> pb.RepositoryIndexRequest:
        only_ready = parse(body).get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidInput.of("ready", "is not a boolean")
        return pb.RepositoryIndexRequest(ready=only_ready)

    return Answer.json(to_json(await call.run(_METHODS + "RepositoryIndex", read))["models"])


async def load(call: RestCall, names: Names) -> Answer:
    """Loads a model."""
    return await _control(call, names, "RepositoryModelLoad", pb.RepositoryModelLoadRequest)


async def unload(call: RestCall, names: Names) -> Answer:
    """Unloads a model."""
    return await _control(call, names, "RepositoryModelUnload", pb.RepositoryModelUnloadRequest)


async def _control(call: RestCall, names: Names, method: str, request: Callable[..., Message]) -> Answer:
    def read(body: bytes) -> Message:
        given = read_parameters(parse(body))
        parameters = {
            name: pb.ModelRepositoryParameter(**{choice: getattr(value, choice)})
            for name, value in given.items()
            if (choice := value.WhichOneof("parameter_choice")) in _CONTROL_CHOICES
        }
        if wrong := sorted(given.keys() - parameters.keys()):
            raise InvalidInput.of(f"parameters[{wrong[0][:128]}]", "is a fraction, or out of range")
        return request(model_name=names["name"], parameters=parameters)

    await call.run(_METHODS + method, read)
    return Answer(b"", (JSON,))


def to_json(message: Message) -> dict[str, Any]:
    """Returns a message as JSON in Triton's format: original field names, 64-bit integers as numbers."""
    return {field.name: _value(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _value(field: Any, value: Any) -> Any:  # noqa: ANN401 - a field's descriptor, of one of two types, and its value
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {str(key): _element(entry, value[key]) for key in value}
    if field.is_repeated:
        return [_element(field, element) for element in value]
    return _element(field, value)


def _element(field: Any, value: Any) -> Any:  # noqa: ANN401 - an element of a field
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def _json_bytes(header: str, body_bytes: int) -> int | None:
    if not header:
        return None
    if not header.isdecimal() or len(header) > 19 or (length := int(header)) > body_bytes:
        text = f"is {header[:32]!r}, expected at most the {body_bytes} bytes of the body"
        raise InvalidInput.of("Inference-Header-Content-Length", text)
    if length == 0:
        text = "is 0, but a body with only binary data is not supported; begin it with JSON that describes the inputs"
        raise InvalidInput.of("Inference-Header-Content-Length", text)
    return length


_CONTROL_CHOICES = frozenset(field.name for field in pb.ModelRepositoryParameter.DESCRIPTOR.fields)

_MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_REPOSITORY = r"/v2/repository/models/(?P<name>[^/]+)"
ENDPOINTS: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", f"{_MODEL}/infer", infer),
    ("GET", "/v2", metadata),
    ("GET", "/v2/health/live", live),
    ("GET", "/v2/health/ready", ready),
    ("GET", "/v2/models/stats", statistics),
    ("GET", f"{_MODEL}/ready", model_ready),
    ("GET", f"{_MODEL}/config", model_config),
    ("GET", f"{_MODEL}/stats", statistics),
    ("GET", _MODEL, model_metadata),
    ("POST", "/v2/repository/index", index),
    ("POST", f"{_REPOSITORY}/load", load),
    ("POST", f"{_REPOSITORY}/unload", unload),
)
"""HTTP method, path pattern and endpoint; the first match is used."""
