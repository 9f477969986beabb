"""Writes the reference of gRPC from the comments of the contracts, and that of REST from the OpenAPI document."""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

Document = dict[str, Any]
Path = tuple[int, ...]
Comments = dict[Path, str]

# Field numbers in descriptor.proto, of which the paths of comments consist.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _NESTED_MESSAGE, _NESTED_ENUM, _METHOD, _VALUE = 2, 3, 4, 2, 2


def grpc_reference(contracts: FileDescriptorSet, packages: list[str]) -> str:
    """Returns the page on the services, messages and enums of some packages.

    Args:
        contracts: With the comments of their sources.
        packages: Names of packages, in the order of the page.
    """
    parts = ["# gRPC reference\n\nGenerated from the comments in `proto/`.\n"]
    for package in packages:
        parts.append(f"## {package}\n")
        for file in (file for file in contracts.file if file.package == package):
            parts += _file(file)
    return "\n".join(parts)


def _file(file: FileDescriptorProto) -> Iterator[str]:
    comments: Comments = {
        tuple(place.path): _line(place.leading_comments)
        for place in file.source_code_info.location
        if place.leading_comments
    }
    for index, service in enumerate(file.service):
        yield from _service(service, file.package, comments, (_SERVICE, index))
    for index, message in enumerate(file.message_type):
        yield from _message(message, file.package, comments, (_MESSAGE, index))
    for index, enum in enumerate(file.enum_type):
        yield from _enum(enum, file.package, comments, (_ENUM, index))


def _service(service: ServiceDescriptorProto, package: str, comments: Comments, path: Path) -> Iterator[str]:
    yield from _heading(f"service {service.name}", f"{package}.{service.name}", comments.get(path, ""))
    for index, method in enumerate(service.method):
        request = ("stream " if method.client_streaming else "") + _link(method.input_type)
        response = ("stream " if method.server_streaming else "") + _link(method.output_type)
        yield f"**`{method.name}`**({request}) returns ({response})\n"
        yield f"{comments.get((*path, _METHOD, index), '')}\n"


def _message(message: DescriptorProto, scope: str, comments: Comments, path: Path) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = f"{scope}.{message.name}"
    yield from _heading(f"message {message.name}", name, comments.get(path, ""))
    maps = {f".{name}.{entry.name}": entry for entry in message.nested_type if entry.options.map_entry}
    yield from _table(
        ("field", "type"),
        (
            (field.name, _type(field, message, maps), comments.get((*path, _FIELD, index), ""))
            for index, field in enumerate(message.field)
        ),
    )
    for index, nested in enumerate(message.nested_type):
        yield from _message(nested, name, comments, (*path, _NESTED_MESSAGE, index))
    for index, enum in enumerate(message.enum_type):
        yield from _enum(enum, name, comments, (*path, _NESTED_ENUM, index))


def _enum(enum: EnumDescriptorProto, scope: str, comments: Comments, path: Path) -> Iterator[str]:
    yield from _heading(f"enum {enum.name}", f"{scope}.{enum.name}", comments.get(path, ""))
    yield from _table(
        ("name", "number"),
        (
            (value.name, str(value.number), comments.get((*path, _VALUE, index), ""))
            for index, value in enumerate(enum.value)
        ),
    )


def _heading(title: str, anchor: str, comment: str) -> Iterator[str]:
    yield f"### {title} {{ #{anchor} }}\n"
    if comment:
        yield f"{comment}\n"


def _type(field: FieldDescriptorProto, message: DescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    if entry := maps.get(field.type_name):
        key, value = entry.field
        return f"map of {_name(key)} to {_name(value)}"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {_name(field)}"
    if field.proto3_optional:
        return f"optional {_name(field)}"
    if field.HasField("oneof_index"):
        return f"{_name(field)}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return _name(field)


def _name(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _link(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _link(type_name: str) -> str:
    name = type_name.removeprefix(".")
    short = name.rpartition(".")[2]
    return f"`{name}`" if name.startswith("google.") else f"[`{short}`](#{name})"


def rest_reference(document: Document) -> str:
    """Returns the page on the paths and schemas of an OpenAPI document."""
    parts = ["# REST reference\n\nGenerated from the document that the server has at `/openapi.json`.\n"]
    parts.append(f"{document['info']['description']}\n\n## Paths\n")
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            parts += _operation(f"{verb.upper()} {path}", operation)
    parts.append("## Errors\n\n| status | |\n| --- | --- |")
    parts += [f"| {code} | {_cell(one['description'])} |" for code, one in document["components"]["responses"].items()]
    parts.append("\n## Schemas\n")
    for name, schema in document["components"]["schemas"].items():
        parts += _schema(name, schema)
    return "\n".join(parts)


def _operation(title: str, operation: Document) -> Iterator[str]:
    yield f"### `{title}`\n"
    yield f"{operation.get('description', '')}\n"
    yield from _table(
        ("parameter", "in"),
        ((one["name"], one["in"], one.get("description", "")) for one in operation.get("parameters", [])),
    )
    if body := operation.get("requestBody"):
        yield f"Request: {_content(body)}\n"
    if content := _content(operation["responses"].get("200", {})):
        yield f"Response: {content}\n"


def _content(holder: Document) -> str:
    """The media types of a body, each with its schema."""
    return ", ".join(
        f"`{kind}` {_schema_type(entry['schema'])}" if "schema" in entry else f"`{kind}`"
        for kind, entry in holder.get("content", {}).items()
    )


def _schema(name: str, schema: Document) -> Iterator[str]:
    yield from _heading(name, f"schema-{name}", schema.get("description", ""))
    properties: Document = schema.get("properties", {})
    yield from _table(
        ("field", "type"),
        ((key, _schema_type(one), one.get("description", "")) for key, one in properties.items()),
    )
    if not properties and ("type" in schema or "enum" in schema):
        yield f"{_schema_type(schema)}\n"


def _schema_type(schema: Document) -> str:
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[`{name}`](#schema-{name})"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_schema_type(one) for one in choices)
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array" and "items" in schema:
        return f"array of {_schema_type(schema['items'])}"
    return str(schema.get("contentEncoding", schema.get("type", "any")))


def _table(header: tuple[str, str], rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Name, type and description of each row; nothing without rows."""
    lines = [f"| `{name}` | {kind} | {_cell(description)} |" for name, kind, description in rows]
    if lines:
        yield "\n".join([f"| {header[0]} | {header[1]} | |", "| --- | --- | --- |", *lines, ""])


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|").replace("<", "&lt;")
