"""Exact Shapley values: how far each feature moves the risk from the background's mean risk.

The value of a coalition S of features is the mean risk of patients who have the explained patient's values in S and a
background patient's values elsewhere (Štrumbelj & Kononenko 2014; "interventional" in Janzing et al. 2020). All 2^n
coalitions are computed. Where patient and background agree on a feature, coalitions with and without it are one row.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

MAX_FEATURES = 12


def rows_needed(patient: NDArray[np.float32], background: NDArray[np.float32]) -> int:
    """How many rows `hybrids` will make."""
    return int(np.sum(2 ** np.count_nonzero(patient != background, axis=1)))


def hybrids(
    patient: NDArray[np.float32], background: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The rows whose risks the coalitions' values are made of.

    Args:
        patient: [features], NaN where missing: it stays so in a coalition with that feature.
        background: [size, features].

    Returns:
        Rows [rows, features], none of them twice for one background patient, and for each coalition and background
        patient the position of their row, [2^features, size].
    """
    size, count = background.shape
    differs = (patient != background) @ (1 << np.arange(count))  # a number whose bits are features
    coalition = np.arange(2**count)[:, None] & differs
    codes, position = np.unique(coalition + (np.arange(size) << count), return_inverse=True)
    rows = np.where(_members(count)[codes & (2**count - 1)], patient, background[codes >> count])
    return rows, position.reshape(coalition.shape)


def shapley_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each feature's Shapley value, [features], from the values of all coalitions, [2^features].

    Bit i of a coalition's index says whether feature i is in it. All contributions and the value of the empty
    coalition add up to the value of the full one.
    """
    return _weights(values.size.bit_length() - 1) @ values


@functools.cache
def _members(count: int) -> NDArray[np.bool_]:
    """Which features are in each coalition, [2^count, count]."""
    members: NDArray[np.bool_] = np.arange(2**count)[:, None] & (1 << np.arange(count)) != 0
    return members


@functools.cache
def _weights(count: int) -> NDArray[np.float64]:
    """Shapley's weights, [count, 2^count]: with the feature in S (|S|-1)! (n-|S|)! / n!, else -|S|! (n-|S|-1)! / n!."""
    members = _members(count)
    # By the number of the other features in S.
    of_others = np.array([1 / (count * math.comb(count - 1, others)) for others in range(count)])
    others = members.sum(axis=1, keepdims=True) - members
    return np.ascontiguousarray(np.where(members, of_others[others], -of_others[others]).T)
