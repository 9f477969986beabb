"""Filling of holes in objects."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medserve_masks.bands import bands

# Background is connected across corners, since objects are not.
_CORNERS = np.ones((3, 3), bool)


def fill_holes(labels: NDArray[np.int32], count: int) -> None:
    """Fills the holes of objects, in place: areas of background that a single object encloses.

    An area enclosed by several objects together, or which contains another object, is left as it is.

    Args:
        labels: 0 for background and 1 to `count` for objects, [h, w].
        count: Number of objects.
    """
    areas, number = ndimage.label(labels == 0, structure=_CORNERS)
    lowest, highest = _neighbors(labels, count, areas, number)
    enclosed = lowest == highest
    for edge in (areas[0], areas[-1], areas[:, 0], areas[:, -1]):
        enclosed[edge] = False
    owners = np.where(enclosed, lowest, 0).astype(np.int32)
    for band in bands(labels.shape):
        labels[band] += owners[areas[band]]


def _neighbors(
    labels: NDArray[np.int32], count: int, areas: NDArray[np.int32], number: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns the lowest and the highest object next to each area of background, [number + 1]."""
    lowest = np.full(number + 1, count + 1, np.int32)
    highest = np.zeros(number + 1, np.int32)
    for band in bands(labels.shape):
        rows = slice(max(band.start - 1, 0), band.stop)
        area, label = areas[rows], labels[rows]
        for here, there in (
            (np.s_[:, 1:], np.s_[:, :-1]),
            (np.s_[:, :-1], np.s_[:, 1:]),
            (np.s_[1:], np.s_[:-1]),
            (np.s_[:-1], np.s_[1:]),
        ):
            touching = (area[here] > 0) & (label[there] > 0)
            np.minimum.at(lowest, area[here][touching], label[there][touching])
            np.maximum.at(highest, area[here][touching], label[there][touching])
    return lowest, highest
