"""Requests of the medserve API for a load test: synthetic ones for a model's manifest, or the user's own items."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from medserve_client.images import ImageSource
from medserve_client.loadtest.protocol.http2 import Outcome
from medserve_client.messages import FeatureValue, Patient, classify_request, predict_request
from medserve_client.results import ModelDescription
from medserve_client.segmentation.messages import segment_request
from medserve_client.segmentation.results import MaskFormat
from medserve_proto.v1.image_classification_pb2 import ClassifyStreamResponse
from medserve_proto.v1.image_segmentation_pb2 import SegmentStreamResponse
from medserve_proto.v1.manifest_pb2 import COLOR_SPACE_RGB, ColorSpace, Feature, Manifest
from medserve_proto.v1.patient_risk_pb2 import PredictStreamResponse

_Item = TypeVar("_Item")

# Number of distinct synthetic requests, and their maximum total size in bytes.
_REQUESTS, _BYTES = 64, 32 * 1024 * 1024
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
# First byte of a stream response that is not an error: the tag of field 1, in all of these messages.
_RESPONSE_TAG = b"\x0a"


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests for one model.

    Attributes:
        model: model name.
        version: model version.
        method: path of the unary method.
        payloads: serialized requests.
        stream_method: path of the bidirectional streaming method, if any.
        outcome: returns the gRPC status of one serialized stream response.
        http_headers: headers of each request; None for gRPC.
    """

    model: str
    version: str
    method: str
    payloads: list[bytes] = field(repr=False)
    stream_method: str = ""
    outcome: Outcome | None = None
    http_headers: Sequence[tuple[str, str]] | None = None


def image_workload(model: ModelDescription, images: Sequence[ImageSource], batch: int) -> Workload:
    """Returns requests of `batch` images each that contain every image at least once.

    Raises:
        OSError: a file cannot be read.
    """
    payloads = [
        classify_request(group, model.name, model.version, 0).SerializeToString() for group in _groups(images, batch)
    ]
    service = "/medserve.v1.ImageClassification"
    methods = f"{service}/Classify", f"{service}/ClassifyStream"
    return Workload(model.name, model.version, methods[0], payloads, methods[1], classify_outcome)


def segmentation_workload(model: ModelDescription, images: Sequence[ImageSource], batch: int) -> Workload:
    """Returns requests of `batch` images each that contain every image at least once; masks are not returned.

    Raises:
        OSError: a file cannot be read.
    """
    payloads = [
        segment_request(group, model.name, model.version, masks=MaskFormat.NONE).SerializeToString()
        for group in _groups(images, batch)
    ]
    service = "/medserve.v1.ImageSegmentation"
    methods = f"{service}/Segment", f"{service}/SegmentStream"
    return Workload(model.name, model.version, methods[0], payloads, methods[1], segment_outcome)


def patient_workload(model: ModelDescription, patients: Sequence[Patient], batch: int) -> Workload:
    """Returns requests of `batch` patients each that contain every patient at least once."""
    payloads = [
        predict_request(group, model.name, model.version).SerializeToString() for group in _groups(patients, batch)
    ]
    service = "/medserve.v1.PatientRisk"
    methods = f"{service}/Predict", f"{service}/PredictStream"
    return Workload(model.name, model.version, methods[0], payloads, methods[1], predict_outcome)


def _groups(items: Sequence[_Item], batch: int) -> list[list[_Item]]:
    count = math.ceil(len(items) / batch)
    return [[items[(first * batch + place) % len(items)] for place in range(batch)] for first in range(count)]


def synthetic_images(manifest: Manifest, batch: int, seed: int) -> list[ImageSource]:
    """Returns noise images, enough for several distinct requests of `batch` images.

    They have the model's input shape, or that of a single tile.
    """
    shape = _input_shape(manifest)
    count = batch * max(1, min(_REQUESTS, _BYTES // (batch * math.prod(shape))))
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]


def _input_shape(manifest: Manifest) -> tuple[int, int, int]:
    """Returns height, width and number of channels."""
    if manifest.HasField("image_classification"):
        image = manifest.image_classification.input
        return image.height, image.width, _channels(image.color_space)
    source = manifest.image_segmentation.input
    side = source.tiling.max_side
    height, width = (source.fixed.height, source.fixed.width) if source.HasField("fixed") else (side, side)
    return height, width, _channels(source.color_space)


def _channels(color_space: ColorSpace.ValueType) -> int:
    return 3 if color_space == COLOR_SPACE_RGB else 1


def synthetic_patients(features: Sequence[Feature], batch: int, seed: int) -> list[Patient]:
    """Returns patients with random features within the training range, enough for several distinct requests."""
    random = np.random.default_rng(seed)
    return [{feature.name: _value(feature, random) for feature in features} for _ in range(batch * _REQUESTS)]


def _value(feature: Feature, random: np.random.Generator) -> FeatureValue:
    if feature.HasField("categorical"):
        return str(random.choice(list(feature.categorical.names)))
    low = max(feature.numeric.training_min, feature.numeric.valid_min)
    high = min(feature.numeric.training_max, feature.numeric.valid_max)
    if feature.numeric.integer:
        return int(random.integers(math.ceil(low), math.floor(high), endpoint=True))
    return float(random.uniform(low, high))


def classify_outcome(answer: bytes) -> str:
    """Returns the gRPC status of one serialized response of ClassifyStream."""
    return "OK" if answer.startswith(_RESPONSE_TAG) else _error(ClassifyStreamResponse(), answer)


def segment_outcome(answer: bytes) -> str:
    """Returns the gRPC status of one serialized response of SegmentStream."""
    return "OK" if answer.startswith(_RESPONSE_TAG) else _error(SegmentStreamResponse(), answer)


def predict_outcome(answer: bytes) -> str:
    """Returns the gRPC status of one serialized response of PredictStream."""
    return "OK" if answer.startswith(_RESPONSE_TAG) else _error(PredictStreamResponse(), answer)


def _error(message: ClassifyStreamResponse | SegmentStreamResponse | PredictStreamResponse, answer: bytes) -> str:
    try:
        message.ParseFromString(answer)
    except DecodeError:
        return "INTERNAL"
    if message.HasField("response"):
        return "OK"
    return _CODES.get(message.error.code, "UNKNOWN")
