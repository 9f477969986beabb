"""The counts of calls under way, and who a client is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserve_server.errors import Overloaded
from medserve_server.security.limits import CallLimits, client_of


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
def test_a_client_is_its_address_or_its_network(peer: str, client: str) -> None:
    assert client_of(peer) == client


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_no_client_and_not_all_together_ever_have_more_than_they_may(steps: list[tuple[bool, str]]) -> None:
    limits = CallLimits(max_calls=5, max_client_calls=3, max_client_rate=None)
    under_way: list[str] = []
    for enters, client in steps:
        if not enters and client in under_way:
            limits.leave(client)
            under_way.remove(client)
        elif enters:
            full = len(under_way) >= 5 or under_way.count(client) >= 3
            if full:
                with pytest.raises(Overloaded):
                    limits.enter(client)
            else:
                limits.enter(client)
                under_way.append(client)


@pytest.mark.parametrize(("rate", "burst"), [(1000.0, 1000), (2.0, 2), (0.001, 1)])
def test_a_quiet_client_may_send_the_requests_of_a_second_at_once(rate: float, burst: int) -> None:
    limits = CallLimits(max_calls=5, max_client_calls=5, max_client_rate=rate)
    for _ in range(burst):
        limits.enter("a")
        limits.leave("a")
    limits.enter("b")  # has a meter of its own
    if rate < 1000:
        with pytest.raises(Overloaded) as caught:
            limits.enter("a")
        assert caught.value.limit == "client_rate"
        assert limits.pay("a") > 0
