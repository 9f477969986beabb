"""Parts of the small gRPC servers that the client's tests start."""

from collections.abc import Callable

import grpc

from medserve_proto.v1 import patient_risk_pb2 as risk_pb

Serve = Callable[[Callable[[grpc.Server], None]], str]
"""Starts a server with what a function adds to it, and gives its address: the fixture `serve`."""
Answer = Callable[[risk_pb.PredictRequest, grpc.ServicerContext], risk_pb.PredictResponse]


def predicting(answer: Answer) -> Callable[[grpc.Server], None]:
    """A server's PatientRisk/Predict, done by `answer`."""
    handler = grpc.unary_unary_rpc_method_handler(
        answer, risk_pb.PredictRequest.FromString, risk_pb.PredictResponse.SerializeToString
    )
    return lambda server: server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("medserve.v1.PatientRisk", {"Predict": handler})]
    )
