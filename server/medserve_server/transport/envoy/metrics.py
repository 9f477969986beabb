"""Prometheus collector for requests and connections that Envoy refused before they reached the application."""

import logging
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from medserve_server.transport.envoy.admin import counters

log = logging.getLogger(__name__)

_REQUESTS = "http.ingress.adaptive_concurrency.gradient_controller.rq_blocked"
_CONNECTIONS = "downstream_global_cx_overflow"


class EnvoyRefusals(Collector):
    """Collects the refusals from Envoy's admin interface.

    Args:
        admin: socket of Envoy's admin interface.
    """

    def __init__(self, admin: Path) -> None:
        self._admin = admin
        self._counts = {"requests": 0, "connections": 0}

    def describe(self) -> list[CounterMetricFamily]:
        """Returns the metric family without samples, since Envoy does not respond yet at registration."""
        return [_family()]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yields the refusals by kind; the last known counts if Envoy does not respond."""
        try:
            found = counters(self._admin, "rq_blocked|global_cx_overflow")
        except OSError as error:
            log.info("Envoy is starting or stopping and does not respond; using its last known counters: %s", error)
        else:
            self._counts = {
                "requests": found.get(_REQUESTS, 0),
                "connections": sum(count for name, count in found.items() if name.endswith(_CONNECTIONS)),
            }
        family = _family()
        for kind, count in self._counts.items():
            family.add_metric([kind], count)
        yield family


def _family() -> CounterMetricFamily:
    text = "Requests and connections that Envoy refused because too many were active."
    return CounterMetricFamily("medserve_envoy_refused", text, labels=["kind"])
