"""Fixtures: input of the command."""

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def image_file() -> bytes:
    """The content of a PNG file of the size that chest-xray expects."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()
