"""Agreement of two masks: overlap, and distances between their surfaces."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def dice(truth: Mask, found: Mask) -> float:
    """Returns the Dice coefficient (1945), twice the shared area over the sum; 1 if both masks are empty.

    Args:
        truth: [h, w].
        found: [h, w].
    """
    total = int(truth.sum()) + int(found.sum())
    return 2 * int((truth & found).sum()) / total if total else 1.0


def intersection_over_union(truth: Mask, found: Mask) -> float:
    """Returns the shared over the joint area, the Jaccard index; 1 if both masks are empty; arguments as for `dice`."""
    union = int((truth | found).sum())
    return int((truth & found).sum()) / union if union else 1.0


def surface_distances(truth: Mask, found: Mask, spacing: tuple[float, float]) -> tuple[float, float] | None:
    """Returns the 95th percentile of the Hausdorff distance, and the mean distance, between two surfaces.

    The surface of a mask are its pixels that have a neighbor outside of it. Both directions are computed; the larger
    of their 95th percentiles counts (Maier-Hein et al. 2024), and the mean is over the pixels of both surfaces.

    Args:
        truth: [h, w].
        found: [h, w].
        spacing: Distance between rows and between columns.

    Returns:
        Distances in the unit of the spacing; None if a mask is empty.
    """
    if not (truth.any() and found.any()):
        return None
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (truth, found)]
    apart = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    there, back = apart[1][surfaces[0]], apart[0][surfaces[1]]
    farthest = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    return farthest, float(np.concatenate([there, back]).mean())
