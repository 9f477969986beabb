"""The ONNX file: written with its manifest, read, measured, verified and quantized."""
