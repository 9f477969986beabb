"""ONNX in, gRPC out."""
