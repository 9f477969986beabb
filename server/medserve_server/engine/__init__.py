"""Inference engine of one model: the ONNX Runtime session, the request queue and dynamic batching."""
