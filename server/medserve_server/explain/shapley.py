"""Exact Shapley values: each feature's contribution to the difference of the risk from the background's mean risk.

The value of a coalition S of features is the mean risk of hybrid patients with the explained patient's values in S and
a background patient's values elsewhere (Štrumbelj & Kononenko 2014; "interventional" in Janzing et al. 2020). All 2^n
coalitions are computed. If a patient and a background patient agree on a feature, coalitions with and without it share
a row.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

MAX_FEATURES = 12


def rows_needed(patient: NDArray[np.float32], background: NDArray[np.float32]) -> int:
    """Returns the number of rows that `hybrids` creates."""
    return int(np.sum(2 ** np.count_nonzero(patient != background, axis=1)))


def hybrids(
    patient: NDArray[np.float32], background: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Creates the rows from whose risks the values of the coalitions are computed.

    Args:
        patient: [features]; NaN for missing values, which remain missing in coalitions with that feature.
        background: [size, features].

    Returns:
        The rows, [rows, features], without duplicates for one background patient, and the row index for each coalition
        and background patient, [2^features, size].
    """
    size, count = background.shape
    differs = (patient != background) @ (1 << np.arange(count))  # a bit mask of features
    coalition = np.arange(2**count)[:, None] & differs
    codes, position = np.unique(coalition + (np.arange(size) << count), return_inverse=True)
    rows = np.where(_members(count)[codes & (2**count - 1)], patient, background[codes >> count])
    return rows, position.reshape(coalition.shape)


def shapley_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns each feature's Shapley value, [features], from the values of all coalitions, [2^features].

    Bit i of a coalition's index is set if feature i is in it. The Shapley values and the value of the empty coalition
    add up to the value of the full coalition.
    """
    return _weights(values.size.bit_length() - 1) @ values


@functools.cache
def _members(count: int) -> NDArray[np.bool_]:
    """Returns whether each feature is in each coalition, bool [2^count, count]."""
    members: NDArray[np.bool_] = np.arange(2**count)[:, None] & (1 << np.arange(count)) != 0
    return members


@functools.cache
def _weights(count: int) -> NDArray[np.float64]:
    """Returns the Shapley weights, [count, 2^count].

    The weight is (|S|-1)! (n-|S|)! / n! if the feature is in S, else -|S|! (n-|S|-1)! / n!.
    """
    members = _members(count)
    # Indexed by the number of other features in S.
    of_others = np.array([1 / (count * math.comb(count - 1, others)) for others in range(count)])
    others = members.sum(axis=1, keepdims=True) - members
    return np.ascontiguousarray(np.where(members, of_others[others], -of_others[others]).T)
