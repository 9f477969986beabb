"""Writes, reads, evaluates, verifies and quantizes ONNX files with their manifests."""
