"""Examples of requests for the OpenAPI document: they suit the models of this repository."""

from typing import Any

_FEATURES = {
    "age": {"number": 55},
    "menopause": {"category": "post"},
    "tumor_size": {"number": 22},
    "grade": {"category": "II"},
    "positive_nodes": {"number": 3},
    "progesterone_receptor": {"number": 120},
    "estrogen_receptor": {"number": 80},
    "hormone_therapy": {"category": "yes"},
}

_PNG = "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAFElEQVR42mNowAMYRiVHJUclYQAA14+IELSdtnwAAAAASUVORK5CYII="

EXAMPLES: dict[str, Any] = {
    "ClassifyRequest": {
        "images": [
            {"encoded": _PNG},
        ],
        "topK": 1,
    },
    "SegmentRequest": {
        "images": [{"image": {"encoded": _PNG}, "pixelSpacing": {"rowMm": 0.5, "columnMm": 0.5}}],
        "contours": True,
    },
    "PredictRequest": {
        "patients": [{"features": [{"key": name, "value": value} for name, value in _FEATURES.items()]}],
    },
    "InferenceRequest": {
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 8], "data": [55, 1, 22, 1, 3, 120, 80, 1]}],
    },
}
"""Example of each request by the name of its schema."""
