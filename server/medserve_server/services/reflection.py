"""Server reflection, versions v1 and v1alpha, which have the same wire format.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor

from medserve_proto.reflection import reflection_pb2 as pb

V1ALPHA = "grpc.reflection.v1alpha"
V1 = "grpc.reflection.v1"
SERVICE = "ServerReflection"
POOL = descriptor_pool.Default()


def add_reflection(services: Iterable[str], server: Any) -> None:  # noqa: ANN401 - grpc.Server or compatible
    """Adds both versions to a server.

    Args:
        services: Full names of the services to list in addition to reflection itself.
        server: Accepts handlers like `grpc.Server`.
    """
    _describe_v1()
    versions = [f"{package}.{SERVICE}" for package in (V1, V1ALPHA)]
    names = sorted([*services, *versions])

    async def answer(requests: AsyncIterator[pb.ServerReflectionRequest], _: object) -> AsyncIterator[Any]:
        async for request in requests:
            yield _answer(request, names)

    handler = grpc.stream_stream_rpc_method_handler(
        answer,
        request_deserializer=pb.ServerReflectionRequest.FromString,
        response_serializer=pb.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    for name in versions:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        server.add_registered_method_handlers(name, methods)


def _answer(request: pb.ServerReflectionRequest, services: Iterable[str]) -> pb.ServerReflectionResponse:
    """Answers a request; for an unknown name, the response contains an error and the stream continues."""
    response = pb.ServerReflectionResponse(original_request=request)
    try:
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                _add_files(response, POOL.FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                _add_files(response, POOL.FindFileContainingSymbol(request.file_containing_symbol))
            case "file_containing_extension":
                extended = POOL.FindMessageTypeByName(request.file_containing_extension.containing_type)
                number = request.file_containing_extension.extension_number
                extension = POOL.FindExtensionByNumber(extended, number)
                _add_files(response, POOL.FindFileContainingSymbol(extension.full_name))
            case "all_extension_numbers_of_type":
                extended = POOL.FindMessageTypeByName(request.all_extension_numbers_of_type)
                response.all_extension_numbers_response.base_type_name = extended.full_name
                numbers = sorted(extension.number for extension in POOL.FindAllExtensions(extended))
                response.all_extension_numbers_response.extension_number.extend(numbers)
            case "list_services":
                response.list_services_response.service.extend(pb.ServiceResponse(name=name) for name in services)
            case None:
                _set_error(response, grpc.StatusCode.INVALID_ARGUMENT)
    except KeyError:
        _set_error(response, grpc.StatusCode.NOT_FOUND)
    return response


def _add_files(response: pb.ServerReflectionResponse, file: FileDescriptor) -> None:
    """Adds a file and its transitive imports, each once."""
    files: dict[str, FileDescriptor] = {}
    waiting = [file]
    while waiting:
        found = waiting.pop()
        if found.name not in files:
            files[found.name] = found
            waiting.extend(found.dependencies)
    response.file_descriptor_response.file_descriptor_proto.extend(each.serialized_pb for each in files.values())


def _set_error(response: pb.ServerReflectionResponse, code: grpc.StatusCode) -> None:
    number, text = code.value
    response.error_response.error_code = number
    response.error_response.error_message = text


def _describe_v1() -> None:
    """Adds the descriptor of v1 to the pool: the descriptor of v1alpha with the package renamed."""
    proto = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    renamed = text_format.MessageToString(proto).replace(V1ALPHA, V1)
    proto = text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto())
    proto.name = "grpc/reflection/v1/reflection.proto"
    POOL.Add(proto)
