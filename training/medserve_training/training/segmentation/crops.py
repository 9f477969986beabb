"""Random crops of images and masks, augmented jointly."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from medserve_training.data.masks import MaskedImage
from medserve_training.recipes.segmentation_settings import Crops

Targets = tuple[Tensor, Tensor, Tensor, Tensor]


class RandomCrops(Dataset[Targets]):
    """Random crops: pixels float32 [height, width, channels], and the three targets that `targets` returns.

    Random numbers are from PyTorch's global generator, which is seeded for each training run.

    Args:
        images: The training images.
        settings: Size and augmentation of the crops.
        signed: Whether the loss uses signed distances; if not, they are 0.
    """

    def __init__(self, images: Sequence[MaskedImage], settings: Crops, *, signed: bool) -> None:
        self._images = images
        self._settings = settings
        self._signed = signed
        groups: dict[str, list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(image.group, []).append(index)
        self._groups = list(groups.values())
        self._shares = torch.tensor([math.sqrt(len(group)) for group in self._groups])

    def __len__(self) -> int:
        return self._settings.per_epoch

    def __getitem__(self, index: int) -> Targets:
        del index
        group = self._groups[int(torch.multinomial(self._shares, 1))]
        image = self._images[group[int(torch.randint(len(group), ()))]]
        pixels, labels = _cut(image, self._settings)
        return (_change(pixels, self._settings), *targets(labels, signed=self._signed))


class CentralCrops(Dataset[Targets]):
    """The central crop of each image, without augmentation, for the validation loss."""

    def __init__(self, images: Sequence[MaskedImage], settings: Crops, *, signed: bool) -> None:
        self._images = images
        self._settings = Crops(settings.height, settings.width, settings.per_epoch)
        self._signed = signed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Targets:
        pixels, labels = _cut(self._images[index], self._settings, centered=True)
        return (pixels, *targets(labels, signed=self._signed))


def targets(labels: NDArray[np.int32], *, signed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the targets of the losses, each float32 [labels, h, w]: masks, distances and signed distances.

    - masks: 1 where an object is.
    - distances: the distance from the border of the object, divided by its maximum in the object; 0 outside.
    - signed distances: the distance from the border of the mask, negative inside, in units of the diagonal.

    Args:
        labels: The number of the object at each pixel, 0 for background, [labels, h, w].
        signed: Whether to compute signed distances; if not, they are 0.
    """
    masks = labels > 0
    distances = np.stack([_distances(objects) for objects in labels])
    borders = np.stack([_signed_distances(mask) for mask in masks]) if signed else np.zeros(labels.shape)
    first, second, third = (torch.from_numpy(array.astype(np.float32)) for array in (masks, distances, borders))
    return first, second, third


def _distances(objects: NDArray[np.int32]) -> NDArray[np.float64]:
    from_border = ndimage.distance_transform_edt(_interior(objects))
    highest = np.zeros(objects.max() + 1)
    np.maximum.at(highest, objects.ravel(), from_border.ravel())
    shares: NDArray[np.float64] = from_border / np.maximum(highest, 1)[objects]
    return shares


def _signed_distances(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    apart: NDArray[np.float64] = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    return apart / math.hypot(*mask.shape)


def _interior(objects: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns the pixels of objects that touch no other object."""
    inside = objects > 0
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        touch = (objects[first] != objects[second]) & (objects[first] > 0) & (objects[second] > 0)
        inside[first] &= ~touch
        inside[second] &= ~touch
    return inside


def _uniform(limit: float) -> float:
    return float(torch.rand(()) * 2 - 1) * limit


def _factor(limit: float) -> float:
    """Returns a random number from 1 / limit to limit, uniform on a logarithmic scale."""
    return math.exp(_uniform(math.log(limit)))


def _cut(image: MaskedImage, settings: Crops, *, centered: bool = False) -> tuple[Tensor, NDArray[np.int32]]:
    """Returns a rotated, scaled and flipped crop: pixels float32 [height, width, channels], and labels."""
    height, width = image.pixels.shape[:2]
    angle, scale = math.radians(_uniform(settings.rotation)), _factor(settings.scale)
    across = -1.0 if settings.flip != "none" and torch.rand(()) < 0.5 else 1.0
    down = -1.0 if settings.flip == "both" and torch.rand(()) < 0.5 else 1.0
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    turn = np.array([[cosine * down, -sine * across], [sine * down, cosine * across]])
    # The crop's center is placed so that the crop is within the image, as far as possible.
    reach = np.abs(turn) @ np.array([settings.height / 2, settings.width / 2])
    room = np.maximum(np.array([height / 2, width / 2]) - reach, 0)
    place = np.zeros(2) if centered else (torch.rand(2).numpy() * 2 - 1) * room
    center = np.array([height / 2, width / 2]) + place
    rows = np.arange(settings.height) + 0.5 - settings.height / 2
    columns = np.arange(settings.width) + 0.5 - settings.width / 2
    down_to = center[0] + turn[0, 0] * rows[:, None] + turn[0, 1] * columns
    across_to = center[1] + turn[1, 0] * rows[:, None] + turn[1, 1] * columns
    grid = torch.from_numpy(np.stack([across_to * 2 / width - 1, down_to * 2 / height - 1], axis=-1)).float()
    planes = torch.from_numpy(image.pixels).permute(2, 0, 1).float()[None]
    pixels = functional.grid_sample(planes, grid[None], padding_mode="reflection", align_corners=False)[0]
    labels = torch.from_numpy(image.labels.astype(np.float32))[None]
    objects = functional.grid_sample(
        labels, grid[None], mode="nearest", padding_mode="reflection", align_corners=False
    )[0]
    return pixels.permute(1, 2, 0), objects.numpy().astype(np.int32)


def _change(pixels: Tensor, settings: Crops) -> Tensor:
    """Changes gain, gamma, tint, sharpness and noise of pixels, float32 [height, width, channels], from 0 to 255."""
    values = (pixels / 255).clamp(0, 1)
    # Bright images are not overexposed: the gain leaves the mean below one half, or where it was.
    mean = float(values.mean())
    gain = min(_factor(settings.gain), max(1.0, 0.5 / max(mean, 1e-6)))
    values = values ** _factor(settings.gamma) * gain
    values = values * torch.tensor([_factor(settings.tint) for _ in range(values.shape[2])])
    if settings.blur and torch.rand(()) < 0.5:
        spread = float(torch.rand(())) * settings.blur
        values = torch.from_numpy(ndimage.gaussian_filter(values.numpy(), (spread, spread, 0)))
    if settings.noise:
        spread = float(torch.rand(()) * settings.noise * values.std())
        # Gray images remain gray.
        shape = values.shape if _colored(pixels) else (*values.shape[:2], 1)
        values = values + torch.randn(shape) * spread
    return (values * 255).clamp(0, 255).round()


def _colored(pixels: Tensor) -> bool:
    return bool((pixels[..., :1] != pixels).any())
