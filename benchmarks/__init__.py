"""Benchmarks of medserve against bare ONNX Runtime and other model servers."""
