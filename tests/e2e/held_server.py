"""The server on one processor, and under control of a test: python held_server.py FILE FLAGS...

While FILE exists, no run of a model ends and no encoded picture is read.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
from PIL import Image

from medserve_server.cli import main

if __name__ == "__main__":
    file = Path(sys.argv.pop(1))

    def held(function: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the original
            while file.exists():
                time.sleep(0.01)
            return function(*args, **kwargs)

        return waiting

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ort.InferenceSession.run = held(ort.InferenceSession.run)
    Image.open = held(Image.open)
    main()
