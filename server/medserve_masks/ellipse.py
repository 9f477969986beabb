"""Ellipses with the same second moments as objects."""

import math

import numpy as np
from numpy.typing import NDArray

from medserve_masks.moments import moments

Floats = NDArray[np.float64]


def ellipse_axes(covariances: Floats) -> tuple[Floats, Floats]:
    """Returns the lengths of the major and the minor axis of the ellipses with these second moments, each [n].

    An axis of an ellipse is four standard deviations long.

    Args:
        covariances: Second central moments xx, yy and xy, [n, 3].
    """
    xx, yy, xy = covariances.T
    mean, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return 4 * np.sqrt(mean + spread), 4 * np.sqrt(np.maximum(mean - spread, 0))


def ellipse_circumference(mask: NDArray[np.bool_], spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Returns the circumference of the ellipse with the same second moments, by Ramanujan's second formula (1914).

    Its error is below 0.03 % for axes of any ratio up to 10.

    Args:
        mask: Pixels of one object, [h, w], at least one of them.
        spacing: Distance between rows and between columns.

    Returns:
        The circumference in the unit of the spacing.
    """
    major, minor = ellipse_axes(moments(mask.view(np.uint8), 1, spacing).covariances)
    total = float(major[0] + minor[0])
    h = (float(major[0] - minor[0]) / total) ** 2 if total else 0.0
    return math.pi * total / 2 * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
