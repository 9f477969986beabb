"""Loss functions of segmentation, which map maps [n, labels, h, w] to one number for each crop, [n]."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from medserve_training.recipes.segmentation_settings import SegmentationLoss

_FOCUS = 2.0


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Computes the binary cross-entropy, averaged over the pixels.

    Args:
        logits: [n, labels, h, w].
        masks: 0 or 1, float32 [n, labels, h, w].
    """
    return functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=(1, 2, 3))


def focal(logits: Tensor, masks: Tensor) -> Tensor:
    """Computes the focal loss (Lin et al. 2017, eq. 4) with gamma 2, averaged over the pixels; arguments as above."""
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return ((1 - torch.exp(-entropy)) ** _FOCUS * entropy).mean(dim=(1, 2, 3))


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Computes 1 minus the soft Dice coefficient (Milletari et al. 2016) of each label, averaged over the labels.

    1 is added to numerator and denominator, so that an empty mask has a gradient.
    """
    probabilities = torch.sigmoid(logits)
    both = (probabilities * masks).sum(dim=(2, 3))
    total = probabilities.square().sum(dim=(2, 3)) + masks.sum(dim=(2, 3))
    return (1 - (2 * both + 1) / (total + 1)).mean(dim=1)


def boundary(logits: Tensor, signed_distances: Tensor) -> Tensor:
    """Computes the boundary loss (Kervadec et al. 2019, eq. 5): the mean of probability times signed distance.

    Args:
        logits: [n, labels, h, w].
        signed_distances: Distance from the border of the mask, negative inside, in units of the diagonal of the crop,
            float32 [n, labels, h, w].
    """
    return (torch.sigmoid(logits) * signed_distances).mean(dim=(1, 2, 3))


def distance(logits: Tensor, distances: Tensor, masks: Tensor) -> Tensor:
    """Computes the mean absolute error of the distance map.

    The error is averaged over the objects and over the background separately, since objects may be rare.

    Args:
        logits: Logits of the distance, [n, labels, h, w].
        distances: Distance from the border of the object, divided by its maximum, 0 outside, [n, labels, h, w].
        masks: 0 or 1, float32 [n, labels, h, w].
    """
    errors = (torch.sigmoid(logits) - distances).abs()
    inside = (errors * masks).sum(dim=(1, 2, 3)) / masks.sum(dim=(1, 2, 3)).clamp(min=1)
    outside = (errors * (1 - masks)).sum(dim=(1, 2, 3)) / (1 - masks).sum(dim=(1, 2, 3)).clamp(min=1)
    return inside + outside


def combined(weights: SegmentationLoss, maps: Tensor, masks: Tensor, distances: Tensor, signed: Tensor) -> Tensor:
    """Computes the weighted sum of the terms: [n].

    Args:
        weights: Weights of the terms.
        maps: The network's output: logits of the labels and, if the network separates objects, of the distances.
        masks: As for `cross_entropy`.
        distances: As for `distance`.
        signed: As for `boundary`.
    """
    labels = masks.shape[1]
    logits = maps[:, :labels]
    terms: dict[str, Callable[[], Tensor]] = {
        "cross_entropy": lambda: cross_entropy(logits, masks),
        "focal": lambda: focal(logits, masks),
        "dice": lambda: dice(logits, masks),
        "boundary": lambda: boundary(logits, signed),
        "distance": lambda: distance(maps[:, labels:], distances, masks),
    }
    total = torch.zeros(len(maps), device=maps.device)
    for name, term in terms.items():
        if weight := getattr(weights, name):
            total = total + weight * term()
    return total
