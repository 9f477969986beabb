"""Per-client limits on calls, and client identification."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import Clock
from medserve_server.config import Settings
from medserve_server.errors import Overloaded
from medserve_server.security.limits import CallLimits, client_of, connection_limits


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("ipv4:10.0.0.1:5555", "10.0.0.1"),
        ("ipv6:%5B::1%5D:5555", "::/64"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:5555", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::%5D:1", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5555", "10.0.0.1"),
        ("unix:", ""),
    ],
)
def test_a_client_is_identified_by_address_or_network(peer: str, client: str) -> None:
    assert client_of(peer) == client


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_neither_a_client_nor_all_together_exceed_their_limits(steps: list[tuple[bool, str]]) -> None:
    limits = CallLimits(max_calls=5, max_client_calls=3, max_client_rate=None)
    in_flight: list[str] = []
    for enters, client in steps:
        if not enters and client in in_flight:
            limits.leave(client)
            in_flight.remove(client)
        elif enters:
            full = len(in_flight) >= 5 or in_flight.count(client) >= 3
            if full:
                with pytest.raises(Overloaded):
                    limits.enter(client)
            else:
                limits.enter(client)
                in_flight.append(client)


def test_a_call_beyond_a_limit_is_refused_with_the_limit_and_not_counted() -> None:
    limits = CallLimits(max_calls=3, max_client_calls=2, max_client_rate=None)
    for _ in range(2):
        limits.enter("a")
    with pytest.raises(Overloaded) as caught:
        limits.enter("a")
    assert caught.value.message == "2 calls of this client are already in progress; try again when one has ended"
    assert caught.value.limit == "client_calls"
    limits.check()  # another client may enter
    limits.enter("b")
    for refused in (limits.check, lambda: limits.enter("c")):
        with pytest.raises(Overloaded) as caught:
            refused()
        assert caught.value.message == "3 calls are already in progress; try again later"
        assert caught.value.limit == "calls"
    limits.leave("a")
    limits.enter("a")
    limits.leave("b")
    with pytest.raises(Overloaded):
        limits.enter("a")
    limits.enter("b")


def test_the_first_request_after_boot_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock starts at 0 there, and a request may pay for longer than the machine has been up."""
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    CallLimits(max_calls=1, max_client_calls=1, max_client_rate=0.001).enter("a")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("medserve_server.security.limits.time", clock)
    monkeypatch.setattr("medserve_server.security.limits._MAX_TRACKED_CLIENTS", 3)
    return clock


def limit_hit(limits: CallLimits, client: str) -> str | None:
    try:
        limits.enter(client)
    except Overloaded as error:
        return error.limit
    limits.leave(client)
    return None


@pytest.mark.parametrize(("rate", "burst"), [(1000.0, 1000), (2.0, 2), (0.001, 1)])
def test_an_idle_client_may_send_one_second_of_requests_in_a_burst(clock: Clock, rate: float, burst: int) -> None:
    limits = CallLimits(max_calls=5, max_client_calls=5, max_client_rate=rate)
    for _ in range(burst):
        limits.enter("a")
        limits.leave("a")
    limits.enter("b")  # has its own rate limiter
    with pytest.raises(Overloaded) as caught:
        limits.enter("a")
    assert caught.value.limit == "client_rate"
    assert caught.value.message == f"this client sent more than {rate:g} requests per second; try again later"
    clock.sleep(1 / rate)
    limits.enter("a")


def test_a_client_at_its_limit_is_not_evicted_by_many_others(clock: Clock) -> None:
    limits = CallLimits(max_calls=99, max_client_calls=99, max_client_rate=2.0)
    assert [limit_hit(limits, "a") for _ in range(3)] == [None, None, "client_rate"]
    for number in range(20):
        assert limit_hit(limits, f"other {number}") is None
    assert limit_hit(limits, "a") == "client_rate"
    clock.sleep(0.5)
    assert [limit_hit(limits, "a") for _ in range(2)] == [None, "client_rate"]


def test_requests_of_a_stream_are_delayed_to_the_rate_of_their_client(clock: Clock) -> None:
    limits = CallLimits(max_calls=99, max_client_calls=99, max_client_rate=2.0)
    limits.enter("a")
    assert [limits.pay("a") for _ in range(3)] == [0.0, 0.5, 1.0]
    assert limits.pay("b") == 0.0
    assert limit_hit(limits, "a") == "client_rate"
    clock.sleep(1.0)  # the last request may now be served
    assert limit_hit(limits, "a") == "client_rate"
    assert limits.pay("a") == 0.5
    clock.sleep(60)
    assert [limits.pay("a") for _ in range(3)] == [0.0, 0.0, 0.5], "no more than one second of requests is saved up"


def test_clients_that_are_idle_for_long_are_evicted(clock: Clock) -> None:
    """Their rate limiters would exhaust memory; like a new client, they may then send one second of requests."""
    limits = CallLimits(max_calls=99, max_client_calls=99, max_client_rate=2.0)
    for number in range(1000):
        assert limit_hit(limits, f"client {number}") is None
        assert len(limits._paid_until) <= 3  # noqa: SLF001 - memory is what this is about
        clock.sleep(10)
    assert [limit_hit(limits, "client 0") for _ in range(3)] == [None, None, "client_rate"]


@given(steps=st.lists(st.tuples(st.integers(0, 8), st.sampled_from("abcdef")), max_size=60))
def test_evicting_clients_does_not_affect_them(steps: list[tuple[int, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr("medserve_server.security.limits.time", clock)
        refusals = []
        for forget_at in (0, 1000):
            patch.setattr("medserve_server.security.limits._MAX_TRACKED_CLIENTS", forget_at)
            limits = CallLimits(max_calls=99, max_client_calls=99, max_client_rate=2.0)
            clock.now = 1000.0
            seen = []
            for eighths, client in steps:
                clock.sleep(eighths / 8)
                seen.append(limit_hit(limits, client))
            refusals.append(seen)
    assert refusals[0] == refusals[1]


def test_the_limits_of_settings_apply_to_connections_of_grpcio() -> None:
    settings = Settings(max_connections=7, max_connection_age=0.0314, max_connection_idle=1e9, min_ping_interval=2)
    assert connection_limits(settings) == [
        ("grpc.max_allowed_incoming_connections", 7),
        ("grpc.server_handshake_timeout_ms", 20_000),
        ("grpc.max_connection_age_ms", 31),
        ("grpc.max_connection_age_grace_ms", 31),
        ("grpc.max_connection_idle_ms", 2_147_483_647),
        ("grpc.http2.min_ping_interval_without_data_ms", 2000),
        ("grpc.http2.max_ping_strikes", 2),
    ]
