"""Server reflection, in the versions v1 and v1alpha, whose messages are the same on the wire.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1ALPHA = "grpc.reflection.v1alpha"
V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(services: Iterable[str], server: Any) -> None:  # noqa: ANN401 - grpc's server, or alike
    """Adds both versions to a server.

    Args:
        services: Full names of the services that it tells of beside itself.
        server: Takes handlers as `grpc.Server` does.
    """
    _describe_v1()
    servicer: Any = reflection.aio.ReflectionServicer([*services, V1, reflection.SERVICE_NAME])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    for name in (V1, reflection.SERVICE_NAME):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        server.add_registered_method_handlers(name, methods)


def _describe_v1() -> None:
    """Adds the description of v1, which grpcio-reflection lacks: that of v1alpha with another package."""
    pool = descriptor_pool.Default()
    text = reflection_pb2.DESCRIPTOR.serialized_pb
    proto = descriptor_pb2.FileDescriptorProto.FromString(text)
    renamed = text_format.MessageToString(proto).replace(V1ALPHA, "grpc.reflection.v1")
    proto = text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto())
    proto.name = "grpc/reflection/v1/reflection.proto"
    pool.Add(proto)
