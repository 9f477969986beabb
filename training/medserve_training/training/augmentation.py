"""Random augmentation of batches of training images, on tensors."""

import torch
from torch import Tensor
from torch.nn import functional

from medserve_training.recipes.training_settings import Augmentation


def augment(image: Tensor, settings: Augmentation) -> Tensor:
    """Rotates, shifts, scales and flips each image, then changes its contrast and brightness.

    Random numbers are from PyTorch's global generator, which is seeded for each training run. Pixels beyond an edge
    repeat the edge; values are clamped to 0 to 255.

    Args:
        image: uint8 [n, height, width, channels].
        settings: Ranges of the changes.

    Returns:
        float32 [n, height, width, channels].
    """
    planes = image.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(_affine(planes, settings), list(planes.shape), align_corners=False)
    planes = functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    contrast = 1 + _uniform(planes, settings.contrast)[:, None, None, None]
    brightness = _uniform(planes, settings.brightness)[:, None, None, None]
    mean = planes.mean(dim=(1, 2, 3), keepdim=True)
    deviation = planes.std(dim=(1, 2, 3), keepdim=True)
    changed = mean + (planes - mean) * contrast + deviation * brightness
    return changed.clamp(0, 255).permute(0, 2, 3, 1)


def _affine(planes: Tensor, settings: Augmentation) -> Tensor:
    """Returns random affine maps from positions in the output to positions in the input, [n, 2, 3].

    Positions are in the coordinates of `affine_grid`, from -1 to 1 along either axis.
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
    # Rotates in pixels: the scales of the axes differ if the image is not square.
    first = torch.stack([cosine * mirror, -sine * height / width, across], dim=1)
    second = torch.stack([sine * mirror * width / height, cosine, down], dim=1)
    return torch.stack([first, second], dim=1)


def _uniform(planes: Tensor, limit: float) -> Tensor:
    """Returns one random number from -limit to limit for each image, [n]."""
    return ((torch.rand(len(planes)) * 2 - 1) * limit).to(planes.device)
