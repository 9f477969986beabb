"""The gRPC health check, grpc.health.v1.Health/Check, without the grpcio-health-checking package.

Its two messages have one field each and are wire compatible with the well-known wrapper
messages: the request has a string in field 1, the response an enum in field 1.
"""

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from medserve_client.results import OpenEnum

METHOD = "/grpc.health.v1.Health/Check"
HealthCheckRequest = StringValue
HealthCheckResponse = Int32Value


class HealthStatus(OpenEnum):
    """Health status of a server or of one of its services."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3
