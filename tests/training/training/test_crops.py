import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from medserve_training.data.masks.crops import CentralCrops, RandomCrops, targets
from medserve_training.data.masks.image import MaskedImage
from medserve_training.recipes.segmentation_settings import Crops

HEIGHT, WIDTH = 40, 56


def smooth_image(channels: int = 1) -> MaskedImage:
    """An image whose mask is where its value is above 128, with a gray value that identifies each pixel."""
    random = np.random.default_rng(0)
    values = ndimage.gaussian_filter(random.normal(0, 1, (HEIGHT, WIDTH)), 4)
    gray = (128 + 110 * values / np.abs(values).max()).round().astype(np.uint8)
    return MaskedImage("a", "a", np.repeat(gray[..., None], channels, axis=2), (gray > 128).astype(np.int32)[None])


def crops(count: int, image: MaskedImage, crop: Crops) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    rows = RandomCrops([image], crop, signed=False)
    return [(pixels.numpy(), masks.numpy()) for pixels, masks, _, _ in (rows[index] for index in range(count))]


def test_without_augmentation_a_crop_is_a_part_of_the_image() -> None:
    image = smooth_image(channels=3)
    for pixels, masks in crops(20, image, Crops(16, 24, 1)):
        windows = np.lib.stride_tricks.sliding_window_view(image.pixels[..., 0], (16, 24))
        np.testing.assert_allclose(pixels[..., 0], pixels[..., 2])
        apart = np.abs(windows - pixels[..., 0]).max(axis=(2, 3))
        # A crop may begin between two pixels.
        assert apart.min() < 12
        assert masks.shape == (1, 16, 24)


@settings(deadline=None, max_examples=15)
@given(
    st.floats(0, 180),
    st.floats(1, 2),
    st.sampled_from(["none", "horizontal", "both"]),
    st.sampled_from([(16, 24), (40, 56), (64, 64)]),
    st.integers(0, 1000),
)
def test_the_mask_follows_the_image(rotation: float, scale: float, flip: str, size: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    crop = Crops(*size, 1, rotation=rotation, scale=scale, flip=flip)  # type: ignore[arg-type] # one of its choices
    for pixels, masks in crops(3, smooth_image(), crop):
        assert pixels.shape == (*size, 1)
        # Interpolation, and smoothing before a reduction, change values near the border of the mask.
        clear = np.abs(pixels[..., 0] - 128) > 25
        np.testing.assert_array_equal(masks[0][clear], pixels[..., 0][clear] > 128)


def test_flips_and_rotations_occur() -> None:
    image = smooth_image()
    whole = Crops(HEIGHT, WIDTH, 1, flip="both")
    found = {pixels[::2, ::2].tobytes() for pixels, _ in crops(40, image, whole)}
    assert len(found) == 4
    assert len({pixels.tobytes() for pixels, _ in crops(10, image, Crops(16, 16, 1, rotation=30.0))}) == 10


def test_the_seed_decides() -> None:
    crop = Crops(16, 16, 1, rotation=30.0, scale=1.5, gain=2.0, gamma=1.5, tint=1.1, blur=1.0, noise=0.2)
    torch.manual_seed(3)
    first = crops(3, smooth_image(), crop)
    torch.manual_seed(3)
    for (pixels, masks), (again, masks_again) in zip(first, crops(3, smooth_image(), crop), strict=True):
        np.testing.assert_array_equal(pixels, again)
        np.testing.assert_array_equal(masks, masks_again)


def test_changes_of_brightness_leave_the_mask_and_the_range() -> None:
    image = smooth_image(channels=3)
    crop = Crops(HEIGHT, WIDTH, 1, gain=3.0, gamma=1.5, tint=1.3, blur=1.0, noise=0.3)
    for pixels, masks in crops(10, image, crop):
        assert pixels.min() >= 0
        assert pixels.max() <= 255
        np.testing.assert_array_equal(masks, image.labels)
        assert np.abs(pixels - image.pixels).mean() > 1


def test_groups_are_drawn_in_proportion_to_the_square_roots_of_their_sizes() -> None:
    shade = {"rare": 50, "common": 200}
    labels = np.zeros((1, 8, 8), np.int32)
    images = [
        MaskedImage(str(index), group, np.full((8, 8, 1), shade[group], np.uint8), labels)
        for index, group in enumerate(["rare"] + ["common"] * 9)
    ]
    rows = RandomCrops(images, Crops(8, 8, 1), signed=False)
    rare = np.mean([float(rows[index][0].mean()) == 50 for index in range(200)])
    assert rare == pytest.approx(1 / 4, abs=0.08)


def test_images_are_scaled_to_the_wanted_diameter_of_their_objects() -> None:
    rows, columns = np.indices((96, 96))
    disk = ((rows - 48) ** 2 + (columns - 48) ** 2 <= 12**2).astype(np.int32)
    image = MaskedImage("a", "a", (disk * 200).astype(np.uint8)[..., None], disk[None])
    for wanted in (16.0, 36.0):
        crop = Crops(96, 96, 1, scale=3.0, diameters=(wanted, wanted))
        ((_, masks),) = crops(1, image, crop)
        assert 2 * np.sqrt(masks.sum() / np.pi) == pytest.approx(wanted, abs=1.5)


def test_a_central_crop_is_the_center_of_the_image() -> None:
    image = smooth_image()
    pixels, masks, _, _ = CentralCrops([image], Crops(16, 24, 1, rotation=90.0, noise=0.5), signed=False)[0]
    top, left = (HEIGHT - 16) // 2, (WIDTH - 24) // 2
    window = np.s_[top : top + 16, left : left + 24]
    np.testing.assert_allclose(pixels.numpy(), image.pixels[window], atol=1e-2)
    np.testing.assert_array_equal(masks.numpy(), image.labels[:, *window])


def disks() -> NDArray[np.int32]:
    """Two touching objects and one apart."""
    labels = np.zeros((24, 32), np.int32)
    labels[4:14, 2:10], labels[4:14, 10:18], labels[16:22, 24:28] = 1, 2, 7
    return labels


def test_distances_are_zero_between_touching_objects_and_one_in_the_middle_of_each() -> None:
    labels = disks()
    masks, distances, signed = (target.numpy()[0] for target in targets(labels[None], signed=False))
    np.testing.assert_array_equal(masks, labels > 0)
    assert not distances[labels == 0].any()
    assert not signed.any()
    assert not distances[4:14, 9:11].any()
    for number in (1, 2, 7):
        assert distances[labels == number].max() == 1
    apart = labels == 7
    places, border = np.argwhere(apart), np.argwhere(~apart)
    nearest = np.sqrt(((places[:, None] - border[None]) ** 2).sum(axis=2)).min(axis=1)
    np.testing.assert_allclose(distances[apart], nearest / nearest.max(), rtol=1e-6)


def test_signed_distances_are_those_of_each_pixel_to_the_other_side() -> None:
    labels = disks()
    *_, signed = targets(labels[None], signed=True)
    mask = labels > 0
    places = np.argwhere(np.ones_like(mask))
    for side, sign in ((True, -1), (False, 1)):
        others = np.argwhere(mask != side)
        nearest = np.sqrt(((places[:, None] - others[None]) ** 2).sum(axis=2)).min(axis=1).reshape(mask.shape)
        expected = sign * nearest / np.hypot(*mask.shape)
        np.testing.assert_allclose(signed.numpy()[0][mask == side], expected[mask == side], rtol=1e-5)


@pytest.mark.parametrize("value", [0, 1])
def test_signed_distances_of_an_empty_or_full_mask_are_zero(value: int) -> None:
    *_, signed = targets(np.full((1, 6, 5), value, np.int32), signed=True)
    assert not signed.any()
