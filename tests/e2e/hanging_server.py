"""The server with sessions that can hang: python hanging_server.py FILE FLAGS...

While FILE exists, a run with HANGS among its inputs is stuck, and no order to end reaches it.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from medserve_server.cli import main

HANGS = 666.0

if __name__ == "__main__":
    file = Path(sys.argv.pop(1))
    right = ort.InferenceSession.run

    def run(self: ort.InferenceSession, outputs: list[str], inputs: dict[str, Any], options: ort.RunOptions) -> Any:  # noqa: ANN401 - as the original
        if any((array == HANGS).any() for array in inputs.values()):
            while file.exists():
                time.sleep(0.01)
        return right(self, outputs, {name: np.asarray(array) for name, array in inputs.items()}, options)

    ort.InferenceSession.run = run
    main()
