"""Confidence intervals of means, by bootstrap over clusters."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb

Floats = NDArray[np.float64]

RESAMPLES = 2000
# Seed of the bootstrap, fixed for reproducible intervals.
_SEED = 0


def resampled_means(values: Floats, clusters: NDArray[np.generic]) -> Floats:
    """Returns the mean of each column of the values in each resample of the clusters, [resamples, columns].

    Rows of a cluster, e.g. images of one patient, resemble each other; so clusters are drawn, with replacement, and
    with all of their rows.

    Args:
        values: [n, columns].
        clusters: The cluster of each row, [n].
    """
    _, index = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(index)
    sums = np.stack([np.bincount(index, column) for column in values.T], axis=1)
    drawn = np.random.default_rng(_SEED).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES)
    means: Floats = (drawn @ sums) / (drawn @ sizes)[:, np.newaxis]
    return means


def metric(name: str, value: float, resampled: Floats, unit: str) -> pb.Metric:
    """Returns a metric with its 95 % percentile interval.

    Args:
        name: Name of the metric.
        value: Its value.
        resampled: Its value in each resample.
        unit: What the clusters are, in the plural, e.g. "patients".
    """
    low, high = np.quantile(resampled, [0.025, 0.975])
    method = f"bootstrap, {RESAMPLES} resamples of {unit}"
    return pb.Metric(name=name, value=value, interval=pb.ConfidenceInterval(low=low, high=high, method=method))


def mean_metrics(rows: Sequence[Mapping[str, float]], clusters: NDArray[np.generic], unit: str) -> list[pb.Metric]:
    """Returns the mean of each figure over the rows, with its confidence interval.

    Args:
        rows: Figures of each row, e.g. of an image, all with the same names.
        clusters: The cluster of each row, [n].
        unit: As for `metric`.
    """
    values = np.array([list(row.values()) for row in rows], np.float64)
    columns = zip(rows[0], values.mean(axis=0), resampled_means(values, clusters).T, strict=True)
    return [metric(name, value, resampled, unit) for name, value, resampled in columns]
