"""Generates the OpenAPI document of the REST API from the .proto files, with their comments as descriptions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from openapi_examples import EXAMPLES
from openapi_inference import PROBES, inference_paths, inference_schemas
from openapi_status import status_paths, status_schemas

Schema = dict[str, Any]

PACKAGE = "medserve.v1"
IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream")

_FLOAT = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
_INT64 = {"type": "string", "pattern": "^-?[0-9]+$"}
_SCALARS: dict[int, Schema] = {
    FieldDescriptorProto.TYPE_DOUBLE: _FLOAT,
    FieldDescriptorProto.TYPE_FLOAT: _FLOAT,
    FieldDescriptorProto.TYPE_INT64: _INT64,
    FieldDescriptorProto.TYPE_UINT64: _INT64,
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    FieldDescriptorProto.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_NUMBER, _FLAG = _SCALARS[FieldDescriptorProto.TYPE_UINT32], _SCALARS[FieldDescriptorProto.TYPE_BOOL]
_QUERIES: dict[str, dict[str, tuple[str, Schema]]] = {
    "Classify": {
        "topK": ("Maximum number of labels per result; 0 for all.", _NUMBER),
        "preview": ("Whether to return the image as the model receives it.", _FLAG),
    },
    "Segment": {
        "masks": ("Whether and how the objects' pixels are returned.", {"$ref": "#/components/schemas/MaskFormat"}),
        "probabilityMaps": ("Whether to return each label's probability map.", _FLAG),
        "uncertaintyMaps": ("Whether to return the map of the members' disagreement.", _FLAG),
        "contours": ("Whether to return the outline of each object.", _FLAG),
        "overlay": ("Whether to return the image with the outlines drawn over it.", _FLAG),
        "maxObjects": ("Maximum number of objects listed per label; 0 for the server's limit.", _NUMBER),
    },
}
"""Query parameters of the methods that accept an image file as the body, with their descriptions and schemas."""
_ERROR_DESCRIPTIONS = {
    "400": "The request is invalid; `details` names the fields.",
    "401": "The token is missing or unknown.",
    "403": "The token lacks the scope that the method requires.",
    "404": "No such model or version.",
    "408": "The body was not received completely in time.",
    "413": "The body is too large.",
    "415": "The method does not support the Content-Type.",
    "429": "A limit was reached; retry later.",
    "500": "Internal server error.",
    "501": "The request requires a feature that this server does not support.",
    "503": "The server is starting or stopping, or the model is temporarily unavailable.",
    "504": "The deadline was exceeded.",
}


def openapi(contracts: FileDescriptorSet) -> Schema:
    """Returns the OpenAPI document.

    Args:
        contracts: The descriptors of the .proto files, with source info for the comments.
    """
    files = [file for file in contracts.file if file.package == PACKAGE]
    schemas: Schema = {"Error": _error_schema()}
    paths: Schema = {}
    for file in files:
        comments = _comments(file)
        for index, enum in enumerate(file.enum_type):
            schemas[enum.name] = _enum(enum, comments, (5, index))
        for index, message in enumerate(file.message_type):
            schemas |= dict(_messages(message, comments, (4, index), ""))
        for service_index, service in enumerate(file.service):
            for index, method in enumerate(service.method):
                description = comments.get((6, service_index, 2, index), "")
                for template, verb, operation in _operations(service.name, method, description):
                    paths.setdefault(template, {})[verb] = operation
    requests = _referenced(paths, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "medserve",
            "version": "v1",
            "description": "Diagnosis models over HTTP: typed methods under /v1, the Open Inference Protocol under "
            "/v2. Field names may be written as here or as in the .proto files (`model_name`).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"token": []}],
        "paths": paths | status_paths(_errors(body=False)) | inference_paths() | PROBES,
        "components": {
            "schemas": {name: schemas[name] for name in sorted(requests)} | status_schemas() | inference_schemas(),
            "responses": {
                status: {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}
                for status, text in _ERROR_DESCRIPTIONS.items()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operations(service: str, method: MethodDescriptorProto, description: str) -> Iterator[tuple[str, str, Schema]]:
    """Yields path, HTTP method and operation for each HTTP rule of a method."""
    extensions: Any = method.options.Extensions
    first: http_pb2.HttpRule = extensions[annotations_pb2.http]
    for number, rule in enumerate((first, *first.additional_bindings)):
        verb = rule.WhichOneof("pattern")
        if verb is None:
            continue
        template: str = getattr(rule, verb)
        response = {"$ref": f"#/components/schemas/{_local(method.output_type)}"}
        operation: Schema = {
            "operationId": f"{service}_{method.name}" + ("_version" if number else ""),
            "tags": [service],
            "description": description,
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for name in re.findall(r"\{(\w+)\}", template)
            ],
            "responses": {"200": {"description": "OK", "content": _json(response)}} | _errors(body=bool(rule.body)),
        }
        if rule.body:
            content = _json({"$ref": f"#/components/schemas/{_local(method.input_type)}"})
            content["application/json"]["example"] = EXAMPLES[_local(method.input_type)]
            if method.name in _QUERIES:
                content |= {kind: {} for kind in IMAGE_TYPES}
                operation["parameters"] += _query(_QUERIES[method.name])
                operation["description"] += (
                    "\n\nIf the body is an image file, it is the only image of the request: "
                    "`curl --data-binary @x.png -H 'Content-Type: image/png' ...`"
                )
            operation["requestBody"] = {"required": True, "content": content}
        yield template, verb, operation


def _query(options: Mapping[str, tuple[str, Schema]]) -> list[Schema]:
    """Returns the query parameters of a request whose body is an image file."""
    return [
        {"name": name, "in": "query", "description": f"{text} Only if the body is an image file.", "schema": schema}
        for name, (text, schema) in options.items()
    ]


def _errors(*, body: bool) -> Schema:
    return {
        status: {"$ref": f"#/components/responses/{status}"}
        for status in _ERROR_DESCRIPTIONS
        if body or status not in {"408", "413", "415"}
    }


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _messages(
    message: DescriptorProto, comments: dict[tuple[int, ...], str], path: tuple[int, ...], prefix: str
) -> Iterator[tuple[str, Schema]]:
    """Yields name and schema of a message and of its nested types."""
    name = prefix + message.name
    maps = {f".{PACKAGE}.{name}.{entry.name}": entry for entry in message.nested_type if entry.options.map_entry}
    properties = {}
    for index, field in enumerate(message.field):
        schema = _field(field, maps)
        if text := comments.get((*path, 2, index)):
            schema = {**schema, "description": text}
        properties[field.json_name] = schema
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if text := comments.get(path):
        schema["description"] = text
    yield name, schema
    for index, enum in enumerate(message.enum_type):
        yield f"{name}.{enum.name}", _enum(enum, comments, (*path, 4, index))
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _messages(nested, comments, (*path, 3, index), f"{name}.")


def _field(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> Schema:
    if field.type_name in maps:
        return {"type": "object", "additionalProperties": _one(maps[field.type_name].field[1])}
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return {"type": "array", "items": _one(field)}
    return _one(field)


def _one(field: FieldDescriptorProto) -> Schema:
    return {"$ref": f"#/components/schemas/{_local(field.type_name)}"} if field.type_name else _SCALARS[field.type]


def _enum(enum: EnumDescriptorProto, comments: dict[tuple[int, ...], str], path: tuple[int, ...]) -> Schema:
    lines = [
        f"- `{value.name}`" + (f": {text}" if (text := comments.get((*path, 2, index))) else "")
        for index, value in enumerate(enum.value)
    ]
    return {"type": "string", "enum": [value.name for value in enum.value], "description": "\n".join(lines)}


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Returns the leading comment of each definition, by the definition's path."""
    return {
        tuple(location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments
    }


def _local(type_name: str) -> str:
    return type_name.removeprefix(f".{PACKAGE}.")


def _referenced(paths: Schema, schemas: Schema) -> set[str]:
    """Returns the names of the schemas that are referenced, directly or indirectly."""
    found = {"Error"}
    left = _references(paths)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left |= _references(schemas[name])
    return found


def _references(part: object) -> set[str]:
    if isinstance(part, dict):
        prefix = "#/components/schemas/"
        own = {
            ref.removeprefix(prefix) for ref in (part.get("$ref"),) if isinstance(ref, str) and ref.startswith(prefix)
        }
        return own.union(*(_references(value) for value in part.values()))
    return set().union(*(_references(value) for value in part)) if isinstance(part, list) else set()


def _error_schema() -> Schema:
    error = {
        "type": "object",
        "required": ["code", "message", "status"],
        "properties": {
            "code": {"type": "integer", "description": "The HTTP status."},
            "message": {"type": "string"},
            "status": {"type": "string", "description": "The gRPC status, such as INVALID_ARGUMENT."},
            "details": {
                "type": "array",
                "description": "google.rpc.BadRequest, which names the fields, or google.rpc.ErrorInfo.",
                "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
            },
        },
    }
    return {"type": "object", "required": ["error"], "properties": {"error": error}}
