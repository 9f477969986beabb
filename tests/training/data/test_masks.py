import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medserve_training.data.masks.files import read_masks
from medserve_training.data.masks.image import MaskedImage
from medserve_training.data.masks.load import load_masks, split_by_group
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Split, load_recipe
from medserve_training.recipes.segmentation_settings import SegmentationTask
from samples.made_up_masks import HEIGHT, SPACING, WIDTH, write_disks, write_heads


def read(recipe: Path) -> tuple[MaskedImage, ...]:
    loaded = load_recipe(str(recipe))
    assert isinstance(loaded.task, SegmentationTask)
    return read_masks(loaded.data.spec, loaded.task, Path())


def test_an_image_has_the_objects_of_its_mask_and_the_values_of_its_row(tmp_path: Path) -> None:
    images = read(write_disks(tmp_path, 7))
    assert [image.name for image in images] == [f"{index:02}" for index in range(7)]
    assert [image.group for image in images][4:] == ["dish 4", "dish 5", "dish 0"]
    assert [image.kind for image in images][:2] == ["even", "odd"]
    for image in images:
        assert image.pixels.shape == (HEIGHT, WIDTH, 3)
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{image.name}_disk.png"))
        np.testing.assert_array_equal(image.labels, mask[None])
        assert (image.spacing, image.reference) == (None, None)


def test_images_and_masks_are_resized_together_for_a_fixed_size(tmp_path: Path) -> None:
    images = read(write_heads(tmp_path, 3))
    for image in images:
        assert image.pixels.shape == (32, 48, 1)
        assert image.labels.shape == (1, 32, 48)
        assert image.reference is not None
        bright = image.pixels[..., 0] > 115
        assert (bright == (image.labels[0] > 0)).mean() > 0.97


def test_the_spacing_of_a_resized_image_is_that_of_its_new_pixels(tmp_path: Path) -> None:
    (image, *_) = read(write_heads(tmp_path, 3))
    assert image.spacing == pytest.approx((SPACING[0] * HEIGHT / 32, SPACING[1] * WIDTH / 48))


def test_without_a_table_every_image_is_a_group(tmp_path: Path) -> None:
    recipe = write_disks(tmp_path, 4)
    (tmp_path / "masks" / "groups.csv").unlink()
    assert [image.group for image in read(recipe)] == ["00", "01", "02", "03"]


def remove_mask(folder: Path) -> None:
    (folder / "02_disk.png").unlink()


def shrink_mask(folder: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT - 1)).save(folder / "02_disk.png")


def color_mask(folder: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "02_disk.png")


def break_mask(folder: Path) -> None:
    (folder / "02_disk.png").write_bytes(b"no image")


def break_image(folder: Path) -> None:
    (folder / "02.png").write_bytes(b"no image")


def remove_images(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def change_table(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "groups.csv"
        text, number = re.subn(old, new, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert number
        path.write_text(text, encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_mask, "02 has no mask; expected 02_disk.png, gray with 8 or 16 bits"),
        (shrink_mask, f"02_disk.png: is {HEIGHT - 1} x {WIDTH}, but its image is {HEIGHT} x {WIDTH}"),
        (color_mask, "02_disk.png: has the mode RGB, expected gray with 8 or 16 bits"),
        (break_mask, "02_disk.png: is not an image"),
        (break_image, "02.png: "),
        (remove_images, "contains no image"),
        (change_table("^02,.*\n", ""), "groups.csv: has no row for the image '02'"),
        (change_table("kind", "stain"), "groups.csv: has a column 'stain'; expected name and any of group, kind"),
        (change_table("name", "group"), "groups.csv: has no column 'name'"),
    ],
)
def test_invalid_files_are_named(change: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    recipe = write_disks(tmp_path, 4)
    change(tmp_path / "masks")
    with pytest.raises(UserError, match=re.escape(message)):
        read(recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_table("row_mm", "kind"), "task.measure requires row_mm, column_mm and reference_mm for each image"),
        (change_table("^02,(.*),.*$", r"02,\1,"), "task.measure requires row_mm, column_mm and reference_mm"),
        (change_table("^02,(.*),.*$", r"02,\1,long"), "reference_mm of 02 is 'long', expected a number above 0"),
        (change_table("^02,(.*),.*$", r"02,\1,-1"), "reference_mm of 02 is '-1', expected a number above 0"),
    ],
)
def test_invalid_references_are_named(change: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    recipe = write_heads(tmp_path, 4)
    change(tmp_path / "masks")
    with pytest.raises(UserError, match=re.escape(message)):
        read(recipe)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("masks:missing", "missing: is not a folder"),
        ("folder:disks", "data spec 'folder:disks': expected nuclei:FILE, hc18:FILE or masks:FOLDER"),
        ("nuclei:missing.zip", "is missing; --data-dir or MEDSERVE_DATA names its folder"),
        ("hc18:missing.npz", "is missing; --data-dir or MEDSERVE_DATA names its folder"),
    ],
)
def test_data_that_does_not_exist_is_named(spec: str, message: str, tmp_path: Path) -> None:
    task = load_recipe("cell-nuclei").task
    assert isinstance(task, SegmentationTask)
    with pytest.raises(UserError, match=re.escape(message)):
        read_masks(spec, task, tmp_path)


def images_of(groups: list[str]) -> tuple[MaskedImage, ...]:
    pixels, labels = np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.int32)
    return tuple(MaskedImage(str(index), group, pixels, labels) for index, group in enumerate(groups))


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=60).filter(lambda groups: len(set(groups)) >= 3),
    st.floats(0.05, 0.45),
    st.floats(0.05, 0.45),
    st.integers(0, 100),
)
def test_no_group_is_in_two_splits(groups: list[str], validation: float, test: float, seed: int) -> None:
    images = images_of(groups)
    try:
        splits = split_by_group(images, Split(validation, test), seed, "made up")
    except UserError as error:
        # Few large groups may fill validation and test.
        assert "no images are left for" in str(error)  # noqa: PT017 - whether it is raised depends on the example
        return
    parts = [splits.train, splits.validation, splits.test]
    assert sorted(image.name for part in parts for image in part) == sorted(image.name for image in images)
    found = [{image.group for image in part} for part in parts]
    assert all(found)
    assert sum(map(len, found)) == len(set(groups))
    again = split_by_group(images, Split(validation, test), seed, "made up")
    assert [image.name for image in again.test] == [image.name for image in splits.test]


def test_named_groups_are_validation_and_test(tmp_path: Path) -> None:
    recipe = load_recipe(str(write_disks(tmp_path, 12)))
    assert isinstance(recipe.task, SegmentationTask)
    splits = load_masks(recipe, recipe.task, Path())
    assert {image.group for image in splits.validation} == {"dish 2", "dish 3"}
    assert {image.group for image in splits.test} == {"dish 4", "dish 5"}
    assert {image.group for image in splits.train} == {"dish 0", "dish 1"}


def test_split_by_image_ignores_groups() -> None:
    images = images_of(["same"] * 20)
    splits = split_by_group(images, Split(0.2, 0.2, by="image"), 0, "made up")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 4, 4]


@pytest.mark.parametrize(
    ("groups", "split", "message"),
    [
        (["a", "b"] * 5, Split(), "made up: no images are left for .*: 10 images in 2 groups; at least three groups"),
        (
            ["a", "b", "c"],
            Split(validation_groups=("a",), test_groups=("d",)),
            "made up: split names the group 'd'; the data has a, b, c",
        ),
    ],
)
def test_an_impossible_split_is_explained(groups: list[str], split: Split, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_by_group(images_of(groups), split, 0, "made up")
