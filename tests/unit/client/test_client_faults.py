"""The client with servers that fail, are slow or unreachable, and with several servers."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from medserve_client import Client, DeadlineExceededError, InferenceError, UnavailableError
from medserve_proto.v1 import model_catalog_pb2 as catalog_pb
from medserve_proto.v1 import patient_risk_pb2 as risk_pb
from servers.small_server import Answer, Serve, predicting
from waiting import PATIENCE, wait_until


def failing(code: grpc.StatusCode, times: int, calls: list[int]) -> Answer:
    """Fails `failures` times before it answers; records the size of every request."""

    def answer(request: risk_pb.PredictRequest, context: grpc.ServicerContext) -> risk_pb.PredictResponse:
        calls.append(request.ByteSize())
        if len(calls) <= times:
            context.abort(code, "on purpose")
        return risk_pb.PredictResponse(model_name="relapse")

    return answer


@pytest.mark.parametrize("patients", [1, 100_000], ids=["small", "above gRPC's own retry buffer"])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_calls_that_reached_no_model_are_retried(serve: Serve, code: grpc.StatusCode, patients: int) -> None:
    """A grpc server answers CANCELLED to a call that arrives during its shutdown."""
    calls: list[int] = []
    with Client(serve(predicting(failing(code, 2, calls)))) as client:
        assert client.predict_risk([{"age": 40}] * patients, "relapse").model_name == "relapse"
    assert len(calls) == 3


def test_a_server_that_stays_unavailable_is_an_error(serve: Serve) -> None:
    calls: list[int] = []
    target = serve(predicting(failing(grpc.StatusCode.UNAVAILABLE, 100, calls)))
    with Client(target) as client, pytest.raises(UnavailableError, match="on purpose"):
        client.predict_risk({"age": 40}, "relapse")
    assert len(calls) == 4


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_other_statuses_are_not_retried(serve: Serve, code: grpc.StatusCode) -> None:
    calls: list[int] = []
    with Client(serve(predicting(failing(code, 1, calls)))) as client, pytest.raises(InferenceError) as caught:
        client.predict_risk({"age": 40}, "relapse")
    assert caught.value.code is code
    assert len(calls) == 1


def test_a_slow_server_exceeds_the_deadline(serve: Serve) -> None:
    over = threading.Event()

    def slow(_request: risk_pb.PredictRequest, _context: grpc.ServicerContext) -> risk_pb.PredictResponse:
        assert over.wait(PATIENCE)
        return risk_pb.PredictResponse()

    with Client(serve(predicting(slow)), timeout=0.2) as client, pytest.raises(DeadlineExceededError):
        client.predict_risk({"age": 40}, "relapse")
    over.set()


def test_an_unreachable_server_is_unavailable() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(UnavailableError):
        client.models()


def test_retries_outlast_a_server_restart() -> None:
    def start(address: str) -> tuple[grpc.Server, int]:
        server = grpc.server(ThreadPoolExecutor(max_workers=1))
        predicting(lambda _request, _context: risk_pb.PredictResponse(model_name="relapse"))(server)
        port = server.add_insecure_port(address)
        server.start()
        return server, port

    server, port = start("127.0.0.1:0")
    with Client(f"127.0.0.1:{port}") as client, ThreadPoolExecutor() as meanwhile:
        assert client.predict_risk({}, "relapse").model_name == "relapse"
        server.stop(grace=None).wait()
        waiting = meanwhile.submit(client.predict_risk, {}, "relapse")
        time.sleep(0.3)
        server, _ = start(f"127.0.0.1:{port}")
        assert waiting.result().model_name == "relapse"
        server.stop(grace=None).wait()


def test_unknown_error_details_are_ignored(serve: Serve) -> None:
    def odd(_request: risk_pb.PredictRequest, context: grpc.ServicerContext) -> risk_pb.PredictResponse:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the plain message")

    with Client(serve(predicting(odd))) as client, pytest.raises(InferenceError) as caught:
        client.predict_risk({"age": 40}, "relapse")
    assert (caught.value.message, caught.value.violations) == ("the plain message", ())


def test_calls_are_balanced_over_all_addresses(serve: Serve) -> None:
    served: list[str] = []

    def add_services(name: str) -> Callable[[grpc.Server], None]:
        def answer(
            _request: catalog_pb.ListModelsRequest, _context: grpc.ServicerContext
        ) -> catalog_pb.ListModelsResponse:
            served.append(name)
            return catalog_pb.ListModelsResponse()

        handler = grpc.unary_unary_rpc_method_handler(
            answer, catalog_pb.ListModelsRequest.FromString, catalog_pb.ListModelsResponse.SerializeToString
        )
        return lambda server: server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("medserve.v1.ModelCatalog", {"ListModels": handler})]
        )

    first, second = serve(add_services("first")), serve(add_services("second"))
    with Client(f"ipv4:{first},{second}") as client:
        # A call goes to a connected address; both will be connected soon.
        wait_until(lambda: client.models() is not None and len(set(served)) == 2)
        served.clear()
        for _ in range(10):
            client.models()
    assert served.count("first") == served.count("second") == 5


def test_an_enum_value_of_a_newer_server_becomes_unspecified(serve: Serve) -> None:
    def newer(_request: risk_pb.PredictRequest, _context: grpc.ServicerContext) -> risk_pb.PredictResponse:
        warning = risk_pb.PatientWarning(kind=77, message="from the future")  # type: ignore[arg-type]
        return risk_pb.PredictResponse(results=[risk_pb.PatientResult(warnings=[warning])])

    with Client(serve(predicting(newer))) as client:
        warning = client.predict_risk({}, "relapse").results[0].warnings[0]
    assert (warning.kind.name, warning.message) == ("UNSPECIFIED", "from the future")
