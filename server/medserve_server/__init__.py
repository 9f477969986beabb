"""Serves ONNX models over gRPC: image classification, patient risk, and the Open Inference Protocol."""

import os

# ONNX Runtime's official builds report their use to their maker, from the moment they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
