"""Trains medserve's networks and exports them as self-contained ONNX files."""

import os

# Official builds of ONNX Runtime send telemetry as soon as they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
