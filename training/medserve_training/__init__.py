"""Data in, ONNX out: trains the networks of medserve and writes self-contained ONNX files."""

from importlib.util import find_spec

_NEEDED = ("lightning_fabric", "matplotlib", "onnx", "onnxruntime", "pydantic", "sklearn", "sksurv", "torch")
_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    raise ImportError(
        f"medserve_training needs packages that are not installed ({', '.join(_missing)}). "
        'Install them with: pip install "medserve[training]"',
    )
