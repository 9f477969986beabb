"""Client-side throttling of an overloaded server starts and ends when it should."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from medserve_client import AsyncClient, Client, InferenceError, OverloadedError, ResourceExhaustedError
from medserve_client.throttle import Throttle
from medserve_proto.v1 import patient_risk_pb2 as risk_pb
from servers.small_server import Serve, predicting
from waiting import PATIENCE, wait_until


class Ward:
    """A server whose response depends on the patient's feature: immediate, delayed until opened, or rejected."""

    def __init__(self) -> None:
        self.arrived = 0
        self.open = threading.Event()
        self._lock = threading.Lock()

    def predict(self, request: risk_pb.PredictRequest, context: grpc.ServicerContext) -> risk_pb.PredictResponse:
        with self._lock:
            self.arrived += 1
        (entry,) = request.patients[0].features
        if entry.key == "later":
            self.open.wait(PATIENCE)
        elif entry.key == "busy":
            status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
            status.details.add().Pack(ErrorInfo(reason="QUEUE", domain="medserve"))
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        if entry.key in ("busy", "too large"):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "on purpose")
        return risk_pb.PredictResponse(model_name=request.model_name)


class Calls:
    """A client of a ward, and its waiting calls."""

    def __init__(self, client: Client, ward: Ward, threads: ThreadPoolExecutor) -> None:
        self.ward = ward
        self._client = client
        self._threads = threads

    def __call__(self, what: str, model: str = "relapse") -> None:
        self._client.predict_risk({what: 1.0}, model)

    def refused(self, times: int) -> None:
        """Makes sequential calls that the server rejects as overload."""
        for _ in range(times):
            with pytest.raises(OverloadedError, match="on purpose"):
                self("busy")

    def begin(self, model: str = "relapse") -> Future[None]:
        """Starts a call that is answered when the ward is opened."""
        arrived = self.ward.arrived
        call = self._threads.submit(self, "later", model)
        wait_until(lambda: call.done() or self.ward.arrived > arrived)
        return call


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every client's throttle."""
    clock = Clock()
    monkeypatch.setattr("medserve_client.throttle.time", clock)
    return clock


@pytest.fixture
def calls(serve: Serve) -> Iterator[Calls]:
    ward = Ward()
    with Client(serve(predicting(ward.predict))) as client, ThreadPoolExecutor(8) as threads:
        yield Calls(client, ward, threads)
        ward.open.set()


def test_calls_are_limited_to_those_in_flight_at_the_rejection(calls: Calls) -> None:
    waiting = [calls.begin() for _ in range(2)]
    calls.refused(1)
    waiting.append(calls.begin())
    assert calls.ward.arrived == 4
    with pytest.raises(OverloadedError, match=r"not sent: .* 3 are still in flight; try again later"):
        calls("now")
    assert calls.ward.arrived == 4
    calls.ward.open.set()
    for call in waiting:
        call.result()
    calls("now")


def test_each_further_failure_lowers_the_limit_and_ten_successes_raise_it(calls: Calls) -> None:
    first = calls.begin()
    calls.refused(2)  # two may be in flight, then one
    with pytest.raises(OverloadedError, match="not sent"):
        calls("now")
    calls.ward.open.set()
    first.result()
    calls.ward.open.clear()
    for _ in range(10):
        calls("now")
    held = calls.begin()
    calls("now")
    calls.ward.open.set()
    held.result()


def test_one_call_at_a_time_is_always_sent(calls: Calls) -> None:
    calls.refused(5)
    assert calls.ward.arrived == 5
    calls("now")


def test_a_message_that_is_too_large_does_not_throttle(calls: Calls) -> None:
    held = calls.begin()
    for _ in range(5):
        with pytest.raises(ResourceExhaustedError) as caught:
            calls("too large")
        assert not isinstance(caught.value, OverloadedError)
    calls("now")
    calls.ward.open.set()
    held.result()


def test_another_model_is_not_throttled(calls: Calls) -> None:
    held = calls.begin()
    calls.refused(2)
    calls("now", model="another")
    calls.ward.open.set()
    held.result()


def test_the_limit_ends_after_seconds_without_a_failure(calls: Calls, clock: Clock) -> None:
    held = calls.begin()
    calls.refused(2)
    with pytest.raises(OverloadedError, match="not sent"):
        calls("now")
    clock.sleep(4.9)
    with pytest.raises(OverloadedError, match="not sent"):
        calls("now")
    clock.sleep(0.2)
    calls("now")
    calls.ward.open.set()
    held.result()


def test_a_missed_deadline_counts_as_overload(serve: Serve) -> None:
    ward = Ward()
    with Client(serve(predicting(ward.predict)), timeout=1) as client, ThreadPoolExecutor(4) as threads:
        for _ in range(2):
            late = [threads.submit(client.predict_risk, {"later": 1.0}, "relapse") for _ in range(4)]
            for call in late:
                with pytest.raises(InferenceError):
                    call.result()
        assert ward.arrived < 8  # some of the second four were withheld
        ward.open.set()


async def test_the_asynchronous_client_throttles_too(serve: Serve) -> None:
    ward = Ward()
    async with AsyncClient(serve(predicting(ward.predict))) as client:
        with pytest.raises(OverloadedError, match="on purpose"):
            await client.predict_risk({"busy": 1.0}, "relapse")
        assert (await client.predict_risk({"now": 1.0}, "relapse")).model_name == "relapse"
    ward.open.set()


async def test_a_cancelled_call_is_no_longer_in_flight(serve: Serve) -> None:
    ward = Ward()
    async with AsyncClient(serve(predicting(ward.predict))) as client:
        given_up = asyncio.create_task(client.predict_risk({"later": 1.0}, "relapse"))
        await asyncio.to_thread(wait_until, lambda: ward.arrived == 1)
        given_up.cancel()
        with suppress(asyncio.CancelledError):
            await given_up
        for _ in range(2):
            with pytest.raises(OverloadedError, match="on purpose"):
                await client.predict_risk({"busy": 1.0}, "relapse")
        await client.predict_risk({"now": 1.0}, "relapse")
    ward.open.set()


@given(st.lists(st.sampled_from(["begin", "answer", "refuse"]), max_size=60))
def test_a_call_is_withheld_only_after_a_failure_and_while_others_are_in_flight(steps: list[str]) -> None:
    throttle = Throttle()
    in_flight: list[AbstractContextManager[None]] = []
    most = 60.0
    failed = False
    for step in steps:
        if step == "begin":
            call = throttle.call()
            try:
                call.__enter__()
            except OverloadedError:
                assert failed
                assert in_flight
            else:
                in_flight.append(call)
                assert len(in_flight) <= most
        elif in_flight and step == "answer":
            in_flight.pop().__exit__(None, None, None)
            most += 0.1
        elif in_flight:
            most = max(1, len(in_flight) if not failed else most - 1)
            failed = True
            error = OverloadedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "on purpose")
            with suppress(OverloadedError):
                in_flight.pop().__exit__(OverloadedError, error, None)
