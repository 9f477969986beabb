"""What Envoy refused before the application saw it, for Prometheus."""

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
    """Asks Envoy whenever it is asked itself.

    Args:
        admin: Socket of Envoy's admin interface.
    """

    def __init__(self, admin: Path) -> None:
        self._admin = admin
        self._told = {"requests": 0, "connections": 0}

    def describe(self) -> list[CounterMetricFamily]:
        """Returns the family without samples: at its registration, Envoy does not answer yet."""
        return [_family()]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yields the refusals by what was refused; the last that are known where Envoy does not answer."""
        try:
            found = counters(self._admin, "rq_blocked|global_cx_overflow")
        except OSError as error:
            log.info("Envoy starts or stops and does not answer; its counters are shown as they last were: %s", error)
        else:
            self._told = {
                "requests": found.get(_REQUESTS, 0),
                "connections": sum(count for name, count in found.items() if name.endswith(_CONNECTIONS)),
            }
        family = _family()
        for kind, count in self._told.items():
            family.add_metric([kind], count)
        yield family


def _family() -> CounterMetricFamily:
    text = "Requests and connections that Envoy refused, since too many were under way."
    return CounterMetricFamily("medserve_envoy_refused", text, labels=["kind"])
