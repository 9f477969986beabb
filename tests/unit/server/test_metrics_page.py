"""The page /metrics goes on after what it shows could not be collected."""

from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from medserve_server.metrics_page import serve_metrics
from medserve_server.supervise import INTERNAL_ERRORS


class Once(Collector):
    """Fails the first time that it is asked."""

    asked = 0

    def collect(self) -> Iterator[Metric]:
        self.asked += 1
        if self.asked == 1:
            raise ZeroDivisionError
        yield from INTERNAL_ERRORS.collect()

    def describe(self) -> list[Metric]:
        return []


def test_a_page_that_can_not_be_made_is_reported_and_the_next_one_comes() -> None:
    registry = CollectorRegistry()
    registry.register(Once())
    port, stop = serve_metrics(registry, "127.0.0.1", 0, None)
    try:
        with pytest.raises(HTTPError) as caught:
            urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30)
        with caught.value as answer:
            assert answer.code == 500
            assert answer.read() == b"the server failed; its log says why\n"
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
            assert 'medserve_internal_errors_total{where="metrics page"} 1.0' in page.read().decode()
    finally:
        stop()
