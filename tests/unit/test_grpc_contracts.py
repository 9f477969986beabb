"""gRPC's own services: our stubs run under protobuf 6 and 7, and coexist with those of gRPC's packages."""

from types import ModuleType

import pytest
from grpc_health.v1 import health_pb2 as theirs_health
from grpc_reflection.v1alpha import reflection_pb2 as theirs_reflection

from medserve_proto.health import health_pb2
from medserve_proto.reflection import reflection_pb2


@pytest.mark.parametrize(("ours", "theirs"), [(health_pb2, theirs_health), (reflection_pb2, theirs_reflection)])
def test_proto_file_equals_that_of_the_grpc_package(ours: ModuleType, theirs: ModuleType) -> None:
    assert ours.DESCRIPTOR.name == theirs.DESCRIPTOR.name
    assert ours.DESCRIPTOR.serialized_pb == theirs.DESCRIPTOR.serialized_pb
