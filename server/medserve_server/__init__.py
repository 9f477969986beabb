"""Serves ONNX models over gRPC: image classification, patient risk, and the Open Inference Protocol."""

import os

# ONNX Runtime's official builds send telemetry to Microsoft as soon as they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# gRPC's C++ core logs to standard error, and clients can trigger many of these messages at will. The server logs what
# matters itself.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
