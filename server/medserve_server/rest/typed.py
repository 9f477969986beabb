"""The typed APIs as JSON, transcoded by the google.api.http annotations of their proto files.

https://google.aip.dev/127
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.json_format import MessageToDict, Parse, ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from medserve_proto.v1 import image_classification_pb2, image_segmentation_pb2, model_catalog_pb2, patient_risk_pb2
from medserve_proto.v1.image_classification_pb2 import ClassifyRequest
from medserve_proto.v1.image_segmentation_pb2 import SegmentRequest
from medserve_server.errors import InvalidInput
from medserve_server.rest.answer import Answer, HttpError
from medserve_server.rest.call import RestCall
from medserve_server.rest.inference import Endpoint, Names

CONTRACTS: tuple[FileDescriptor, ...] = (
    image_classification_pb2.DESCRIPTOR,
    image_segmentation_pb2.DESCRIPTOR,
    patient_risk_pb2.DESCRIPTOR,
    model_catalog_pb2.DESCRIPTOR,
)
IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream")
"""Content-Types of a body that is a single image; the actual format is detected from its bytes."""

# Error messages of protobuf's JSON parser: the fields that lead to the error, and the path after the message's name.
_FIELDS = re.compile(r"Failed to parse (\w+) field: ")
_NO_FIELD = re.compile(r'has no field named "(.*?)" at "\w+\.?(.*?)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """The HTTP binding of a gRPC method."""

    http_method: str
    template: str
    """Path template, whose variables are fields of the request, e.g. `/v1/models/{model_name}:classify`."""
    body: str
    """`*` if the body is the request, empty if the request has no body."""
    method: MethodDescriptor

    @property
    def pattern(self) -> str:
        """The template as a regular expression."""
        literals = re.split(r"\{(\w+)\}", self.template)
        return "".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(literals))


def rules() -> Iterator[Rule]:
    """Yields all HTTP bindings of the proto files."""
    for contract in CONTRACTS:
        for service in contract.services_by_name.values():
            for method in service.methods:
                extensions: Any = (
                    method.GetOptions().Extensions
                )  # the type annotations do not cover this kind of extension
                first: http_pb2.HttpRule = extensions[annotations_pb2.http]
                for rule in (first, *first.additional_bindings):
                    if kind := rule.WhichOneof("pattern"):
                        yield Rule(kind.upper(), getattr(rule, kind), rule.body, method)


def endpoints() -> list[tuple[str, str, Endpoint]]:
    """Returns HTTP method, path pattern and endpoint of every rule."""
    return [(rule.http_method, rule.pattern, _endpoint(rule)) for rule in rules()]


def _endpoint(rule: Rule) -> Callable[[RestCall, Names], Awaitable[Answer]]:
    path = f"/{rule.method.containing_service.full_name}/{rule.method.name}"
    message_type: type[Message] = GetMessageClass(rule.method.input_type)
    takes_image = "images" in message_type.DESCRIPTOR.fields_by_name

    async def answer(call: RestCall, names: Names) -> Answer:
        content_type = call.header(b"content-type").partition(";")[0].strip().lower()
        image = takes_image and content_type in IMAGE_TYPES
        if rule.body and not image and content_type != "application/json":
            accepted = ", ".join(("application/json", *(IMAGE_TYPES if takes_image else ())))
            raise _unknown_type(content_type, accepted)
        query = call.scope["query_string"].decode("latin-1")

        def read(body: bytes) -> Message:
            if image or not rule.body:
                request = _from_query(message_type(), query)
                if isinstance(request, ClassifyRequest):
                    request.images.add(encoded=body)
                elif isinstance(request, SegmentRequest):
                    request.images.add().image.encoded = body
            else:
                request = _from_json(message_type(), body)
                if query:
                    raise InvalidInput.of("", "the URL has a query, but this method takes all fields from the body")
            return _with_names(request, names)

        response = await call.run(path, read, 0 if image else None)
        return Answer(await call.written(response, _to_json))

    return answer


def _to_json(response: Message) -> bytes:
    return orjson.dumps(MessageToDict(response, always_print_fields_with_no_presence=True))


def _unknown_type(content_type: str, accepted: str) -> HttpError:
    error = {
        "code": 415,
        "message": f"Content-Type is {content_type[:64]!r}, expected one of {accepted}",
        "status": "INVALID_ARGUMENT",
    }
    return HttpError(415, orjson.dumps({"error": error}))


def _from_json(request: Message, body: bytes) -> Message:
    if not body.lstrip(b" \t\r\n").startswith(b"{"):
        raise InvalidInput.of("", "the body is not a JSON object")
    try:
        return Parse(body, request, max_recursion_depth=20)
    except UnicodeDecodeError:
        raise InvalidInput.of("", "the body is not UTF-8") from None
    except (ParseError, ValueError, RecursionError) as error:
        raise _wrong_json(error) from None


def _from_query(request: Message, query: str) -> Message:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=32, errors="strict")
        booleans = {
            name
            for field in request.DESCRIPTOR.fields
            if field.type == FieldDescriptor.TYPE_BOOL
            for name in (field.name, field.json_name)
        }
        fields: dict[str, Any] = {}
        for name, value in pairs:
            if name in fields:
                raise InvalidInput.of(name[:128], "appears more than once in the URL's query")
            fields[name] = _boolean(name, value) if name in booleans else value
        return ParseDict(fields, request)
    except UnicodeDecodeError:
        raise InvalidInput.of("", "the URL's query is not UTF-8") from None
    except (ParseError, ValueError, AttributeError, TypeError) as error:
        raise _wrong_json(error) from None


def _boolean(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise InvalidInput.of(name, f"is {value[:64]!r}, expected true or false")
    return value == "true"


def _with_names(request: Message, names: Names) -> Message:
    """Sets the path variables in the request; if the body contains them too, the values have to match."""
    for name, value in names.items():
        if (given := getattr(request, name)) not in {"", value}:
            raise InvalidInput.of(name, f"is {given[:128]!r}, but the path has {value[:128]!r}")
        setattr(request, name, value)
    return request


def _wrong_json(error: Exception) -> InvalidInput:
    """Converts an error of protobuf's JSON parser, with the path of the field that it names."""
    text = str(error)
    if match := _NO_FIELD.search(text):
        parent, name = match[2], match[1][:128]
        return InvalidInput.of(f"{parent}.{name}" if parent else name, "is not a field of this message")
    fields = _FIELDS.findall(text)
    reason = _FIELDS.sub("", text).removeprefix("Failed to load JSON: ").rstrip(".")
    return InvalidInput.of(".".join(fields), reason if fields else f"the body is not a valid message: {reason}")
