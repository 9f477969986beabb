"""Data in, ONNX out: trains the networks of medserve and writes self-contained ONNX files."""

import os
from importlib.util import find_spec

# ONNX Runtime's official builds report their use to their maker, from the moment they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_NEEDED = ("lightning_fabric", "matplotlib", "onnx", "onnxruntime", "pydantic", "sklearn", "sksurv", "torch")
_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    raise ImportError(
        f"medserve_training needs packages that are not installed ({', '.join(_missing)}). "
        'Install them with: pip install "medserve[training]"',
    )
