"""Fuzz targets: functions that parse untrusted bytes and raise only on unexpected errors."""

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from medserve_images import ImageLimits
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.v1 import image_classification_pb2, image_segmentation_pb2, manifest_pb2, patient_risk_pb2
from medserve_server.config import Settings
from medserve_server.engine.datatypes import DATATYPES
from medserve_server.engine.manifest.reader import KEY, read_manifest
from medserve_server.engine.parity import deviation
from medserve_server.engine.session import Session, TensorSpec
from medserve_server.errors import ModelLoadError, ServingError
from medserve_server.inputs.images import RequestImages, free_target_of, target_of
from medserve_server.inputs.patients import PatientReader, Value
from medserve_server.registry.integrity import read_model
from medserve_server.segment.request import read_request
from medserve_server.services import codec
from medserve_server.status import to_status

MODELS = Path(__file__).resolve().parents[2] / "models"
LIMITS = ImageLimits(max_pixels=10**6, max_ratio=1000.0)
MAX_ENTRIES = 256

warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@cache
def session(name: str) -> Session:
    """Returns a packaged model, loaded once."""
    return Session(
        read_model(MODELS / name / "1/model.onnx", max_bytes=2**24, listed=None, public_key=None),
        "cpu",
        Settings(threads=1),
    )


@cache
def manifest(name: str) -> manifest_pb2.Manifest:
    """Returns the manifest of a packaged model."""
    opened = session(name)
    found = read_manifest(Path(name), opened.metadata, opened.inputs, opened.outputs)
    assert found is not None
    return found


INPUTS = [TensorSpec(name.lower(), name, (-1, 3), "batch") for name in DATATYPES]


def tensors(data: bytes) -> None:
    """Parses tensors of the Open Inference Protocol, in a serialized ModelInferRequest."""
    try:
        request = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    sent = {tensor.name for tensor in request.inputs}
    inputs = [spec for spec in INPUTS if spec.name in sent] or INPUTS[:1]
    try:
        decoded = codec.decode(request, inputs, inputs, batched=True, max_rows=1000)
    except ServingError as error:
        _check_error(error)
    else:
        assert all(array.shape == (decoded.rows, 3) for array in decoded.inputs.values())
        codec.encode(decoded.inputs, inputs, pb.ModelInferResponse(), raw=decoded.raw)


def image(data: bytes) -> None:
    """Decodes an image file, including DICOM."""
    reader = RequestImages(target_of(manifest("chest-xray").image_classification.input), LIMITS)
    try:
        pixels, _ = reader.from_encoded(data, "images[0]")
    except ServingError as error:
        _check_error(error)
    else:
        assert pixels.shape == (28, 28, 1)
        assert pixels.dtype == np.uint8


def raw_image(data: bytes) -> None:
    """Reads raw pixels, in a serialized Image."""
    try:
        message = image_classification_pb2.Image.FromString(data)
    except DecodeError:
        return
    reader = RequestImages(target_of(manifest("chest-xray").image_classification.input), LIMITS)
    try:
        reader.from_raw(message.raw.pixels, tuple(message.raw.shape), "images[0].raw")
    except ServingError as error:
        _check_error(error)


def segmented_images(data: bytes) -> None:
    """Reads the images and pixel spacings of a serialized SegmentRequest."""
    try:
        request = image_segmentation_pb2.SegmentRequest.FromString(data)
    except DecodeError:
        return
    task = manifest("fetal-head").image_segmentation
    try:
        for image in read_request(request, task, RequestImages(free_target_of(task.input), LIMITS)):
            assert image.inputs(0, 1).shape == (1, task.input.fixed.height, task.input.fixed.width, 1)
            assert image.scale.input_pixel > 0
    except ServingError as error:
        _check_error(error)


def patients(data: bytes) -> None:
    """Reads patients, in a serialized PredictRequest."""
    try:
        request = patient_risk_pb2.PredictRequest.FromString(data)
    except DecodeError:
        return
    rows = [[(entry.key, _value(entry.value)) for entry in patient.features] for patient in request.patients]
    try:
        values, _ = PatientReader(manifest("breast-cancer-risk").patient_risk, MAX_ENTRIES).read(rows)
    except ServingError as error:
        _check_error(error)
    else:
        assert not np.isinf(values).any()


def _value(value: patient_risk_pb2.FeatureValue) -> Value:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def manifest_text(data: bytes) -> None:
    """Checks a serialized manifest against the graph of a packaged model, and its reference rows."""
    text = data.decode("utf-8", "replace")
    for name in ("chest-xray", "breast-cancer-risk", "fetal-head"):
        opened = session(name)
        try:
            found = read_manifest(Path(name), {KEY: text}, opened.inputs, opened.outputs)
            if found is None:
                continue
            deviation(opened, found)
            if found.WhichOneof("task") == "patient_risk":
                PatientReader(found.patient_risk, MAX_ENTRIES).read([[], [("age", 1.0), ("grade", "II")]])
        except (ModelLoadError, ServingError):
            continue


def _check_error(error: ServingError) -> None:
    """Checks that an error fits into a response."""
    assert len(to_status(error).SerializeToString()) < 8192
    assert error.message


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tensors": tensors,
    "image": image,
    "raw-image": raw_image,
    "segmented-images": segmented_images,
    "patients": patients,
    "manifest": manifest_text,
}


def corpus(target: str) -> Iterator[bytes]:
    """Returns the saved inputs of a target."""
    for path in sorted((Path(__file__).parent / "corpus" / target).iterdir()):
        yield path.read_bytes()
