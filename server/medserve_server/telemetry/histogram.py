"""A Prometheus histogram whose `observe` takes a sixth of the time of prometheus-client's.

Each call makes several observations, so their cost matters.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Series:
    """Observations with the same labels. Not thread-safe for concurrent calls of `observe`."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Number of observations in each bucket; the last bucket has no upper bound."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Adds an observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class FastHistogram(Collector):
    """A histogram metric family.

    Args:
        name: Name of the family.
        documentation: Help text.
        labels: Label names.
        registry: Registry that collects the family.
        buckets: Finite upper bounds of the buckets, in ascending order.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        buckets: Sequence[float],
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._bounds = tuple(buckets)
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """Returns the series with these label values, and creates it if necessary."""
        return self._series.setdefault(values, Series(self._bounds))

    def series(self) -> list[tuple[tuple[str, ...], Series]]:
        """Returns all series with their label values."""
        return list(self._series.items())

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        """Removes all series with these label values, whatever their other labels."""
        wanted = [(self._labels.index(name), value) for name, value in labels.items()]
        for values in list(self._series):
            if all(values[index] == value for index, value in wanted):
                del self._series[values]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yields the metric family."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        bounds = [*map(floatToGoString, (*self._bounds, float("inf")))]
        for values, series in self.series():
            total, buckets = 0, []
            for bound, count in zip(bounds, list(series.counts), strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric(values, buckets, series.sum)
        yield family
