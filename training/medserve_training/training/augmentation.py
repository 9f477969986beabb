"""Changes training pictures at random: a whole batch at once, on tensors."""

import torch
from torch import Tensor
from torch.nn import functional

from medserve_training.recipes.training_settings import Augmentation


def augment(image: Tensor, settings: Augmentation) -> Tensor:
    """Turns, shifts, scales and mirrors each picture, then changes its contrast and brightness.

    PyTorch's global generator decides, so that the seed of a training run does. What comes in from beyond an edge
    repeats the edge; values stay between 0 and 255.

    Args:
        image: uint8 [n, height, width, channels].
        settings: How far.

    Returns:
        float32 [n, height, width, channels].
    """
    planes = image.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(_where_from(planes, settings), list(planes.shape), align_corners=False)
    planes = functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    contrast = 1 + _uniform(planes, settings.contrast)[:, None, None, None]
    brightness = _uniform(planes, settings.brightness)[:, None, None, None]
    mean = planes.mean(dim=(1, 2, 3), keepdim=True)
    deviation = planes.std(dim=(1, 2, 3), keepdim=True)
    changed = mean + (planes - mean) * contrast + deviation * brightness
    return changed.clamp(0, 255).permute(0, 2, 3, 1)


def _where_from(planes: Tensor, settings: Augmentation) -> Tensor:
    """For each picture the affine map from places of the new one to places of the old, [n, 2, 3].

    Places run from -1 to 1 along either axis, as `affine_grid` has them.
    """
    height, width = planes.shape[2:]
    angle = torch.deg2rad(_uniform(planes, settings.rotation))
    shrink = 1 / (1 + _uniform(planes, settings.scale))
    cosine, sine = torch.cos(angle) * shrink, torch.sin(angle) * shrink
    mirror = torch.ones_like(angle)
    if settings.flip:
        mirror = torch.where(torch.rand(len(planes)) < 0.5, -1.0, 1.0).to(planes.device)
    across = _uniform(planes, settings.shift) * 2 / width
    down = _uniform(planes, settings.shift) * 2 / height
    # A turn in pixels: the axes differ where the picture is not square.
    first = torch.stack([cosine * mirror, -sine * height / width, across], dim=1)
    second = torch.stack([sine * mirror * width / height, cosine, down], dim=1)
    return torch.stack([first, second], dim=1)


def _uniform(planes: Tensor, limit: float) -> Tensor:
    """Numbers from -limit to limit, one for each picture, [n]."""
    return ((torch.rand(len(planes)) * 2 - 1) * limit).to(planes.device)
