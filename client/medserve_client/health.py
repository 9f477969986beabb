"""The health check of gRPC, grpc.health.v1.Health/Check, without its package.

Its two messages have one field each, and are on the wire what the well-known wrapper
messages are: the request a string in field 1, the response an enum in field 1.
"""

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from medserve_client.results import OpenEnum

METHOD = "/grpc.health.v1.Health/Check"
HealthCheckRequest = StringValue
HealthCheckResponse = Int32Value


class HealthStatus(OpenEnum):
    """What a server says about itself or about one of its services."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3
