import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medserve_training.recipes.training_settings import Augmentation
from medserve_training.training.augmentation import augment


def pictures(number: int = 40, height: int = 20, width: int = 24, channels: int = 1) -> Tensor:
    return torch.randint(60, 190, (number, height, width, channels), dtype=torch.uint8)


def spot(height: int = 41, width: int = 31, down: int = 20, across: int = 15) -> Tensor:
    """Copies of an image with a bright spot on black."""
    image = torch.zeros(60, height, width, 1, dtype=torch.uint8)
    image[:, down - 2 : down + 3, across - 2 : across + 3] = 255
    return image


def centers(image: Tensor) -> Tensor:
    """Returns the center of mass of each image, [n, 2]: row and column."""
    light = image[..., 0].float()
    total = light.sum(dim=(1, 2))
    down = (light.sum(dim=2) * torch.arange(image.shape[1])).sum(dim=1) / total
    across = (light.sum(dim=1) * torch.arange(image.shape[2])).sum(dim=1) / total
    return torch.stack([down, across], dim=1)


def test_without_transforms_an_image_is_unchanged() -> None:
    image = pictures(channels=3)
    torch.testing.assert_close(augment(image, Augmentation()), image.float(), atol=1e-3, rtol=0)


def test_the_seed_decides_and_each_image_is_augmented_independently() -> None:
    image, chosen = pictures()[:1].repeat(5, 1, 1, 1), Augmentation(rotation=20.0, shift=3.0, contrast=0.2)
    torch.manual_seed(3)
    first = augment(image, chosen)
    torch.manual_seed(3)
    torch.testing.assert_close(augment(image, chosen), first, rtol=0, atol=0)
    assert len({picture.numpy().tobytes() for picture in first}) == 5
    assert not torch.equal(augment(image, chosen), first)


def test_a_shift_covers_its_range_and_stays_within_it() -> None:
    moved = centers(augment(spot(), Augmentation(shift=4.0))) - torch.tensor([20.0, 15.0])
    assert moved.abs().max() <= 4.01
    assert (moved.abs().amax(dim=0) > 3).all()
    assert (moved.mean(dim=0).abs() < 1.5).all()


def test_a_rotation_preserves_the_distance_from_the_center_of_any_image() -> None:
    moved = centers(augment(spot(down=32, across=15), Augmentation(rotation=30.0))) - torch.tensor([20.0, 15.0])
    torch.testing.assert_close(moved.norm(dim=1), torch.full((60,), 12.0), atol=0.2, rtol=0)
    angle = torch.rad2deg(torch.atan2(moved[:, 1], moved[:, 0]))
    assert angle.abs().max() <= 30.5
    assert angle.max() > 20
    assert angle.min() < -20


def test_scale_changes_the_size_within_its_limit() -> None:
    area = augment(spot(), Augmentation(scale=0.2)).sum(dim=(1, 2, 3)) / (25 * 255)
    assert 0.8**2 - 0.05 <= area.min() < 0.8
    assert 1.25 < area.max() <= 1.2**2 + 0.05


def test_flipping_mirrors_half_of_the_images() -> None:
    image = pictures(100)
    flipped = augment(image, Augmentation(flip=True))
    same = (flipped - image).abs().amax(dim=(1, 2, 3)) < 1e-2
    mirrored = (flipped - image.flip(2)).abs().amax(dim=(1, 2, 3)) < 1e-2
    assert (same ^ mirrored).all()
    assert 30 <= mirrored.sum() <= 70


def test_contrast_preserves_the_mean_and_brightness_shifts_it() -> None:
    image = pictures()
    mean, deviation = image.float().mean(dim=(1, 2, 3)), image.float().std(dim=(1, 2, 3))
    contrasted = augment(image, Augmentation(contrast=0.2))
    torch.testing.assert_close(contrasted.mean(dim=(1, 2, 3)), mean, atol=0.1, rtol=0)
    ratio = contrasted.std(dim=(1, 2, 3)) / deviation
    assert 0.79 < ratio.min() < 0.9 < 1.1 < ratio.max() < 1.21  # noqa: PLR0133 - a chain of bounds
    moved = (augment(image, Augmentation(brightness=0.5)).mean(dim=(1, 2, 3)) - mean) / deviation
    assert moved.abs().max() <= 0.51
    assert moved.max() > 0.3
    assert moved.min() < -0.3


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 90), st.floats(0, 20), st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0, 5))
def test_pixels_stay_in_range(rotation: float, shift: float, scale: float, contrast: float, brightness: float) -> None:
    chosen = Augmentation(rotation, shift, scale, contrast, brightness, flip=True)
    changed = augment(pictures(3, channels=3), chosen)
    assert changed.shape == (3, 20, 24, 3)
    assert (changed >= 0).all()
    assert (changed <= 255).all()


def test_doubling_the_strength_doubles_all_but_limited_transforms() -> None:
    doubled = Augmentation(10.0, 2.5, 0.1, 0.6, 0.3, flip=True).doubled()
    assert doubled == Augmentation(20.0, 5.0, 0.2, 0.9, 0.6, flip=True)
    assert doubled.shift == pytest.approx(5)
