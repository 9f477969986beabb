"""Serves ONNX models over gRPC: image classification, patient risk, and the Open Inference Protocol."""
