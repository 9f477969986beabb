"""The size of previews, and their bound."""

import io

import numpy as np
import pytest
from PIL import Image

from medserve_server.errors import InvalidInput
from medserve_server.explain.preview import check_preview_size, max_png_bytes, to_picture, to_png


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 3), (28, 28, 1), (28, 28, 3), (1, 5000, 3), (5000, 1, 1), (224, 224, 3), (700, 900, 3)]
)
def test_no_image_has_a_larger_png_file_than_the_bound(shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(0)
    for low in (0, 144, 254):
        image = random.integers(low, 256, shape, dtype=np.uint8)
        file = to_png(to_picture(image))
        assert len(file) <= max_png_bytes(shape)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))).reshape(shape), image)


def test_the_sum_over_all_images_is_bounded() -> None:
    shape = (10, 10, 3)
    check_preview_size(7, shape, 7 * max_png_bytes(shape))
    with pytest.raises(InvalidInput, match=r"^preview: needs \S+ MiB for 7 images, at most") as caught:
        check_preview_size(7, shape, 7 * max_png_bytes(shape) - 1)
    assert caught.value.limit == "message_size"
