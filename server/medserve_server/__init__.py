"""Serves ONNX models over gRPC: image classification, patient risk, and the Open Inference Protocol."""

import os

# ONNX Runtime's official builds report their use to their maker, from the moment they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# gRPC's C++ core writes lines of its own to standard error, many of them whenever a client likes. What matters of them
# the server says in its log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
