"""Data in, ONNX out."""
