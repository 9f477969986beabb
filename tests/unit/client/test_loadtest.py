"""The load generator against small servers that are slow, stall, fail, leave and come back."""

import collections
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from medserve_client.loadtest import LoadError, LoadPlan, LoadResult, Progress, run
from small_server import Serve
from waiting import PATIENCE

pytestmark = pytest.mark.process  # a load is made by processes of their own

Answer = Callable[[bytes, grpc.ServicerContext], bytes]


def serving(answer: Answer) -> Callable[[grpc.Server], None]:
    """A server of bytes: /t.T/Unary is done by `answer`, and /t.T/Stream by it for each message."""

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield answer(request, context)

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(answer),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    return lambda server: server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", handlers)])


def echo(request: bytes, _context: grpc.ServicerContext) -> bytes:
    return request


def fine(_answer: bytes) -> str:
    return "OK"


def whole(answer: bytes) -> str:
    """The answer is the request behind the sum of its bytes."""
    digits = 3 if len(answer) > 1 else 1
    return "OK" if any(answer[:n] == b"%d" % (sum(answer[n:]) % 251) for n in range(1, digits + 1)) else "DATA_LOSS"


def first_byte(answer: bytes) -> str:
    return "OK" if answer[0] else "DATA_LOSS"


def measured(target: str, duration: float = 0.3, least: int = 1, **options: object) -> LoadResult:
    """Runs a plan, and on a machine that does not send `least` requests in its time, one of more time."""
    method = "/t.T/Stream" if "outcome" in options else "/t.T/Unary"
    settings = {"payloads": [b"hello"], "warmup": 0.1, "timeout": PATIENCE} | options
    plan = LoadPlan(target, method, duration=duration, **settings)  # type: ignore[arg-type]
    while (result := run(plan)).sent < least:
        plan = replace(plan, duration=2 * plan.duration)
    return result


@pytest.mark.parametrize("mode", ["unary", "stream"])
def test_a_closed_loop_keeps_its_concurrency_in_flight(serve: Serve, mode: str) -> None:
    lock = threading.Lock()
    now, most = 0, 0

    def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return request

    streams: dict[str, Any] = {"outcome": fine} if mode == "stream" else {}
    result = measured(serve(serving(answer)), concurrency=3, connections=3, processes=2, **streams)
    assert 1 <= most <= 3
    assert not result.errors
    assert result.sent == len(result.latencies) > 0
    assert result.completed <= result.sent + 3
    assert result.throughput <= 3 / 0.01
    assert result.latencies.min() >= 0.01
    assert result.sample == b"hello"
    assert result.lateness == 0


def test_requests_and_responses_of_any_size_arrive_completely(serve: Serve) -> None:
    target = serve(serving(lambda request, _: b"%d" % (sum(request) % 251) + request))
    # Empty; as much as one frame takes, and a byte more; more than flow control lets out at once.
    payloads = [np.random.default_rng(size).bytes(size) for size in (0, 16_379, 16_380, 100_000, 1_000_000)]
    of_streams: dict[str, Any] = {"outcome": whole}
    for streams in ({}, of_streams):
        result = measured(target, payloads=payloads, concurrency=4, duration=0.2, **streams)
        assert not result.errors
        assert result.sample == b"0"


def test_a_large_response_arrives_completely(serve: Serve) -> None:
    payload = np.random.default_rng(0).bytes(1_000_000)
    assert measured(serve(serving(echo)), payloads=[payload], concurrency=1, duration=0.1).sample == payload


def test_an_open_loop_sends_at_its_rate(serve: Serve) -> None:
    result = measured(serve(serving(echo)), rate=200, duration=1, connections=2, processes=2)
    assert not result.errors
    assert result.sent == len(result.latencies)
    assert 120 < result.sent < 280  # five standard deviations and more


def test_an_open_loop_measures_a_stalled_server(serve: Serve) -> None:
    calls = itertools.count()

    def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        if next(calls) == 60:
            with stall:
                time.sleep(0.5)
        with stall:
            return request

    stall = threading.Lock()
    # About 50 requests are due in the half second, of 200: all of them waited, not one.
    result = measured(serve(serving(answer)), rate=100, duration=1.9)
    assert not result.errors
    assert result.percentile(99) > 0.4
    assert (result.latencies > 0.1).sum() > 20


def test_errors_are_counted_by_status(serve: Serve) -> None:
    calls = itertools.count()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        number = next(calls)
        if number % 4 == 1:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
        if number % 4 == 3:
            context.abort(grpc.StatusCode.NOT_FOUND, "söme %text")
        return request

    result = measured(serve(serving(answer)), concurrency=2, least=8)
    assert set(result.errors) == {"RESOURCE_EXHAUSTED", "NOT_FOUND"}
    assert result.sent == len(result.latencies) + result.errors.total()
    assert abs(len(result.latencies) - result.errors.total()) <= 4


def test_an_unknown_method_is_unimplemented(serve: Serve) -> None:
    plan = LoadPlan(serve(serving(echo)), "/t.T/Other", [b""], concurrency=1, duration=1, warmup=0)
    result = run(plan)
    assert set(result.errors) == {"UNIMPLEMENTED"}
    assert np.isnan(result.percentile(50))


def test_errors_in_a_stream_are_counted_and_do_not_end_it(serve: Serve) -> None:
    result = measured(serve(serving(echo)), payloads=[b"\0", b"\1"], concurrency=2, least=8, outcome=first_byte)
    assert set(result.errors) == {"DATA_LOSS"}
    assert abs(result.errors["DATA_LOSS"] - len(result.latencies)) <= 2


def test_a_failed_stream_is_reopened(serve: Serve) -> None:
    calls = itertools.count()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if next(calls) % 10 == 9:
            context.abort(grpc.StatusCode.ABORTED, "on purpose")
        return request

    result = measured(serve(serving(answer)), concurrency=2, least=40, outcome=fine)
    assert set(result.errors) == {"ABORTED"}
    assert len(result.latencies) > 0


@pytest.mark.parametrize("streams", [{}, {"outcome": fine}], ids=["unary", "stream"])
def test_a_request_beyond_the_timeout_fails(serve: Serve, streams: dict[str, Any]) -> None:
    def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        time.sleep(0.4)
        return request

    result = measured(serve(serving(answer)), concurrency=1, timeout=0.1, duration=0.3, **streams)
    assert set(result.errors) == {"DEADLINE_EXCEEDED"}


def test_a_restarted_server_is_reconnected() -> None:
    def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
        time.sleep(0.01)
        return request

    def start(port: int) -> tuple[grpc.Server, int]:
        server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        serving(answer)(server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return server, bound

    server, port = start(0)
    successes: list[int] = []

    def on_progress(progress: Progress) -> None:
        nonlocal server
        if progress.succeeded and not successes:
            server.stop(grace=None).wait()
            successes.append(progress.succeeded)
            server, _ = start(port)
        successes.append(progress.succeeded)

    plan = LoadPlan(f"127.0.0.1:{port}", "/t.T/Unary", [b"x"], concurrency=2, duration=3, warmup=0)
    result = run(plan, on_progress)
    server.stop(grace=None).wait()
    assert set(result.errors) <= {"UNAVAILABLE", "CANCELLED"}
    assert result.errors.total() <= 4
    assert len(result.latencies) > successes[0]


def test_an_unreachable_server_is_an_error() -> None:
    with pytest.raises(LoadError, match=r"cannot connect to 127.0.0.1:1: the connection was refused"):
        measured("127.0.0.1:1", concurrency=1)
    with pytest.raises(LoadError, match="expected HOST:PORT"):
        measured("nowhere", concurrency=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"concurrency": 1, "rate": 1.0},
        {"concurrency": 1, "payloads": []},
        {"concurrency": 1, "connections": 2},
        {"rate": 1.0, "processes": 2},
    ],
)
def test_an_invalid_plan_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|must be"):
        measured("127.0.0.1:1", **wrong)


def test_progress_is_reported(serve: Serve) -> None:
    told: collections.deque[Progress] = collections.deque()
    plan = LoadPlan(serve(serving(echo)), "/t.T/Unary", [b"x"], concurrency=1, duration=1, warmup=0.2)
    run(plan, told.append)
    assert told[-1].succeeded > 0
    assert told[-1].failed == 0
    assert [one.succeeded for one in told] == sorted(one.succeeded for one in told)
