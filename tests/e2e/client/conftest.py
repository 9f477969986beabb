"""What the tests of the command send."""

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A PNG file of the size that chest-xray takes."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()
