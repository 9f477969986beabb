"""The server on one processor; while a file exists, model runs and image decoding block."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
from PIL import Image


def apply(file: str) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ort.InferenceSession.run = _held(ort.InferenceSession.run, Path(file))
    Image.open = _held(Image.open, Path(file))


def _held(function: Callable[..., Any], file: Path) -> Callable[..., Any]:
    def waiting(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the original
        while file.exists():
            time.sleep(0.01)
        return function(*args, **kwargs)

    return waiting
