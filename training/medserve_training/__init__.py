"""Data in, ONNX out: trains the networks of medserve and writes self-contained ONNX files."""

import os

# ONNX Runtime's official builds report their use to their maker, from the moment they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
