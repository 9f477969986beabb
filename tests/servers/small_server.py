"""Small gRPC servers for the client's tests."""

from collections.abc import Callable

import grpc

from medserve_proto.v1 import patient_risk_pb2 as risk_pb

Serve = Callable[[Callable[[grpc.Server], None]], str]
"""Type of the fixture `serve`: starts a server with the services that a function adds, and returns its address."""
Answer = Callable[[risk_pb.PredictRequest, grpc.ServicerContext], risk_pb.PredictResponse]


def predicting(answer: Answer) -> Callable[[grpc.Server], None]:
    """Adds PatientRisk/Predict, implemented by `answer`, to a server."""
    handler = grpc.unary_unary_rpc_method_handler(
        answer, risk_pb.PredictRequest.FromString, risk_pb.PredictResponse.SerializeToString
    )
    return lambda server: server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("medserve.v1.PatientRisk", {"Predict": handler})]
    )
