"""Images of any size: tiles leave no seams, and sizes are bounded."""

import grpc
import numpy as np
import pytest
from PIL import Image

from calls.bad_request import code_of, violations
from calls.segmentation import Gray, kinds, picture, segment, to_segment
from medserve_masks import ObjectRule, label_objects
from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from samples.segmentation_models import BLUR, MAX_SIDE, blurred


def clouds(height: int, width: int) -> Gray:
    """Returns smooth noise, with many objects of many shapes."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 10 + 1, width // 10 + 1), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_large_image_has_the_objects_of_the_whole_image(stub: ImageSegmentationStub) -> None:
    image = clouds(203, 310)
    (result,) = segment(stub, "cells", image, masks=pb.MASK_FORMAT_PNG, probability_maps=True)
    assert result.tiles > 20
    assert "TILED" in kinds(result)
    assert (picture(result.labels[0].probability_png) == image).all()
    rule = ObjectRule(threshold=0.5, marker_distance=0.7, min_area=20, largest_only=False, fill_holes=False)
    probabilities = (image / 255).astype(np.float32)
    # At the border of the image, tiles are padded to the stride, so that the mean differs.
    inside = np.s_[BLUR:-BLUR, BLUR:-BLUR]
    expected = label_objects(probabilities, blurred(probabilities), rule)
    mask = picture(result.labels[0].mask_png)
    assert ((mask > 0) == (expected > 0))[inside].mean() > 0.999
    assert result.labels[0].count == pytest.approx(expected.max(), abs=2)


def test_novelty_is_the_mean_of_the_tiles(stub: ImageSegmentationStub) -> None:
    (result,) = segment(stub, "cells", np.full((100, 200), 150, np.uint8))
    assert result.tiles > 1
    assert result.novelty == pytest.approx(150)


def test_image_up_to_the_size_of_a_tile_is_one_tile(stub: ImageSegmentationStub) -> None:
    one, several = segment(stub, "spots", clouds(MAX_SIDE, MAX_SIDE), clouds(MAX_SIDE, MAX_SIDE + 1))
    assert one.tiles == 1
    assert "TILED" not in kinds(one)
    assert several.tiles > 1


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 9), (65, 64)])
def test_image_of_any_size_is_segmented(stub: ImageSegmentationStub, size: tuple[int, int]) -> None:
    image = np.full(size, 200, np.uint8)
    for model in ("spots", "head"):
        (result,) = segment(stub, model, image, masks=pb.MASK_FORMAT_PNG, probability_maps=True, overlay=True)
        assert (result.height, result.width) == size
        assert (picture(result.labels[0].mask_png) == 1).all()
        assert (picture(result.labels[0].probability_png) == 200).all()


def test_raw_image_gives_the_same_result_as_a_file(stub: ImageSegmentationStub) -> None:
    image = clouds(30, 70)
    raw = pb.ImageToSegment(image=image_pb.Image(raw=image_pb.RawImage(pixels=image.tobytes(), shape=image.shape)))
    by_file, by_pixels = segment(stub, "spots", image, raw)
    assert by_file == by_pixels


@pytest.mark.parametrize(
    ("shape", "size", "field", "text"),
    [
        ([30, 70, 3], 30 * 70 * 3, "shape", "is [30, 70, 3], expected [height, width, 1]"),
        ([0, 70], 0, "shape", "is [0, 70], expected [height, width, 1]"),
        ([30], 30, "shape", "is [30], expected [height, width, 1]"),
        ([30, 70], 99, "pixels", "has 99 bytes, expected 2100 for [30, 70]"),
        ([2000, 2000], 99, "shape", "is [2000, 2000], at most 2 megapixels are accepted"),
        ([2**32 - 1, 2**32 - 1], 99, "shape", "at most 2 megapixels are accepted"),
    ],
)
def test_raw_image_whose_shape_is_wrong_is_refused(
    stub: ImageSegmentationStub, shape: list[int], size: int, field: str, text: str
) -> None:
    raw = image_pb.RawImage(pixels=bytes(size), shape=shape)
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "spots", pb.ImageToSegment(image=image_pb.Image(raw=raw)))
    assert text in violations(caught.value)[f"images[0].image.raw.{field}"]


def test_too_many_pixels_are_refused(stub: ImageSegmentationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "spots", clouds(1500, 1500))
    assert "at most 2 are accepted" in violations(caught.value)["images[0].image.encoded"]
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "spots", *[clouds(1000, 1000)] * 3)
    assert "have more than 2 megapixels in total" in violations(caught.value)["images"]


def test_image_that_is_too_long_is_refused(stub: ImageSegmentationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "spots", np.zeros((1, 70_000), np.uint8))
    assert violations(caught.value) == {"images[0].image": "is 70000 x 1, at most 65535 pixels per side are accepted"}


def test_models_with_more_outputs_accept_smaller_images(stub: ImageSegmentationStub) -> None:
    """Two labels with three maps each need 6 values per pixel, so that the limit is 2 megapixels * 4 / 6."""
    image = clouds(1200, 1200)
    assert segment(stub, "spots", image)[0].tiles > 1
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "cells", image)
    assert "at most 1.33333 are accepted" in violations(caught.value)["images[0].image.encoded"]


def test_result_that_is_larger_than_a_message_is_refused(stub: ImageSegmentationStub) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400), dtype=np.uint8)
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "spots", to_segment(noise), masks=pb.MASK_FORMAT_PNG, probability_maps=True, contours=True)
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 2 are allowed" in violations(caught.value)["images"]
