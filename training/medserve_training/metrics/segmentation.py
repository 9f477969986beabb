"""Figures of one predicted mask: overlap with the true mask, and distances between their outlines."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def overlap(predicted: Mask, true: Mask) -> dict[str, float]:
    """Returns the Dice coefficient (Dice 1945) and the intersection over union (Jaccard 1912).

    Both are 1 if both masks are empty.

    Args:
        predicted: [h, w].
        true: [h, w].
    """
    both, total = int((predicted & true).sum()), int(predicted.sum()) + int(true.sum())
    if not total:
        return {"dice": 1.0, "iou": 1.0}
    return {"dice": 2 * both / total, "iou": both / (total - both)}


def outline_distances(predicted: Mask, true: Mask, spacing: tuple[float, float]) -> dict[str, float]:
    """Returns the 95 % Hausdorff distance and the mean surface distance, in millimeters.

    Distances are those from each pixel of one outline to the nearest pixel of the other one. The Hausdorff distance is
    the larger one of the 95th percentiles of both directions, the mean is that over the pixels of both outlines, as in
    MONAI. Both are 0 if both masks are empty. If only one is, they are the diagonal of the image.

    Args:
        predicted: [h, w].
        true: [h, w].
        spacing: Distance between rows and between columns, in millimeters.
    """
    if predicted.any() and true.any():
        directions = [_distances(predicted, true, spacing), _distances(true, predicted, spacing)]
    elif predicted.any() or true.any():
        directions = [np.hypot(*np.multiply(true.shape, spacing, dtype=np.float64)).reshape(1)]
    else:
        directions = [np.zeros(1)]
    largest = max(np.percentile(distances, 95) for distances in directions)
    mean = np.concatenate(directions).mean()
    return {"hausdorff_95_mm": float(largest), "mean_surface_distance_mm": float(mean)}


def _distances(start: Mask, end: Mask, spacing: tuple[float, float]) -> Floats:
    """Returns the distance from each pixel of one mask's outline to the nearest one of the other's."""
    distances: Floats = ndimage.distance_transform_edt(~_outline(end), sampling=spacing)[_outline(start)]
    return distances


def _outline(mask: Mask) -> Mask:
    """Returns the pixels of a mask with a side on the background or on the border of the image."""
    outline: Mask = mask & ~ndimage.binary_erosion(mask)
    return outline
