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

from medserve_training.data.masks.image import MaskedImage
from medserve_training.recipes.segmentation_settings import Crops

# Standard deviation of the Gaussian before an image is reduced to half its size, in pixels.
_SMOOTHING = 0.5

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
        self._diameters = [_diameter(image.labels) for image in images]
        self._centers = [_centers(image.labels) for image in images]

    def __len__(self) -> int:
        return self._settings.per_epoch

    def __getitem__(self, index: int) -> Targets:
        del index
        group = self._groups[int(torch.multinomial(self._shares, 1))]
        chosen = group[int(torch.randint(len(group), ()))]
        pixels, labels = _cut(self._images[chosen], self._settings, self._scale(chosen), self._place(chosen))
        return (_change(pixels, self._settings), *targets(labels, signed=self._signed))

    def _place(self, index: int) -> NDArray[np.float64]:
        """Returns the center of the crop, of half of the crops at an object, relative to height and width."""
        centers = self._centers[index]
        if len(centers) and torch.rand(()) < 0.5:
            center: NDArray[np.float64] = centers[int(torch.randint(len(centers), ()))]
            return center
        return torch.rand(2, dtype=torch.float64).numpy()

    def _scale(self, index: int) -> float:
        limit, diameters, diameter = self._settings.scale, self._settings.diameters, self._diameters[index]
        if diameters is None or diameter is None:
            return _factor(limit)
        low, high = (math.log(wanted / diameter) for wanted in diameters)
        return min(max(math.exp(low + (high - low) * float(torch.rand(()))), 1 / limit), limit)


class CentralCrops(Dataset[Targets]):
    """The central crop of each image, without augmentation, for the validation loss."""

    def __init__(self, images: Sequence[MaskedImage], settings: Crops, *, signed: bool) -> None:
        self._images = images
        self._settings = Crops(settings.height, settings.width, settings.per_epoch)  # without augmentation
        self._signed = signed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Targets:
        pixels, labels = _cut(self._images[index], self._settings, 1.0, np.array([0.5, 0.5]))
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


def _cut(
    image: MaskedImage, settings: Crops, scale: float, place: NDArray[np.float64]
) -> tuple[Tensor, NDArray[np.int32]]:
    """Returns a rotated, scaled and flipped crop: pixels float32 [height, width, channels], and labels.

    Args:
        image: The image.
        settings: Size of the crop, rotation and flips.
        scale: Factor by which the image is enlarged.
        place: Center of the crop, relative to height and width; it is moved so that the crop is within the image.
    """
    size, shape = np.array([settings.height, settings.width]), np.array(image.pixels.shape[:2])
    angle = math.radians(_uniform(settings.rotation))
    across = -1.0 if settings.flip != "none" and torch.rand(()) < 0.5 else 1.0
    down = -1.0 if settings.flip == "both" and torch.rand(()) < 0.5 else 1.0
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    turn = np.array([[cosine * down, -sine * across], [sine * down, cosine * across]])
    reach = np.abs(turn) @ (size / 2)
    room = np.maximum(shape / 2 - reach, 0)
    center = np.clip(place * shape, shape / 2 - room, shape / 2 + room)
    low = np.floor(center - reach - 2).clip(0, shape - 1).astype(int)
    high = np.ceil(center + reach + 2).clip(low + 1, shape).astype(int)
    window = np.s_[low[0] : high[0], low[1] : high[1]]
    rows, columns = (np.arange(extent) + 0.5 - extent / 2 for extent in size)
    places = [
        (center[axis] - low[axis] + turn[axis, 0] * rows[:, None] + turn[axis, 1] * columns)
        * (2 / (high[axis] - low[axis]))
        - 1
        for axis in (1, 0)
    ]
    grid = torch.from_numpy(np.stack(places, axis=-1)).float()[None]
    pixels = image.pixels[window].astype(np.float32)
    if scale < 1:  # without smoothing, details would become noise
        pixels = ndimage.gaussian_filter(pixels, (_SMOOTHING * (1 / scale - 1),) * 2 + (0,))
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    sampled = functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)[0]
    labels = torch.from_numpy(image.labels[:, *window].astype(np.float32))[None]
    objects = functional.grid_sample(labels, grid, mode="nearest", padding_mode="reflection", align_corners=False)[0]
    return sampled.permute(1, 2, 0), objects.numpy().astype(np.int32)


def _diameter(labels: NDArray[np.int32]) -> float | None:
    """Returns the median diameter of the objects, in pixels, as of circles; None if there is none."""
    areas = np.concatenate([np.bincount(objects.ravel())[1:] for objects in labels])
    return 2 * math.sqrt(float(np.median(areas[areas > 0])) / math.pi) if areas.any() else None


def _centers(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Returns the centers of the objects' boxes relative to height and width, [n, 2]."""
    boxes = [box for objects in labels for box in ndimage.find_objects(objects) if box is not None]
    middles = [[(side.start + side.stop) / 2 for side in box] for box in boxes]
    return np.array(middles).reshape(-1, 2) / labels.shape[1:]


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
