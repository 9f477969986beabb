"""Reads the details of a gRPC error: field violations, or the limit that was exceeded."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def violations(error: grpc.RpcError) -> dict[str, str]:
    """Returns descriptions by field from the error's google.rpc.BadRequest."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an error of a call is a call
    assert status is not None, f"{error} has no details"
    (detail,) = status.details
    bad_request = error_details_pb2.BadRequest()
    assert detail.Unpack(bad_request)
    return {violation.field: violation.description for violation in bad_request.field_violations}


def limit_of(error: grpc.RpcError) -> str:
    """Returns the reason in the error's google.rpc.ErrorInfo."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an error of a call is a call
    assert status is not None, f"{error} has no details"
    (detail,) = status.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert info.domain == "medserve"
    return info.reason


def code_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    code: grpc.StatusCode = caught.value.code()
    return code
