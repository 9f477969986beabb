"""Converts between Python values and protobuf messages, for both clients."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias
from uuid import uuid4

import numpy as np

from medserve_client import results
from medserve_client.channel import DEFAULT_MAX_MESSAGE_BYTES
from medserve_client.errors import InferenceError, from_status
from medserve_client.images import Images, to_images
from medserve_client.reasons import ImageReasons, RiskReasons
from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import model_catalog_pb2 as catalog_pb
from medserve_proto.v1 import patient_risk_pb2 as risk_pb

# A number in the manifest's unit, the name of a category, or None if missing.
FeatureValue: TypeAlias = float | int | str | np.integer | np.floating | np.bool_ | None
Patient: TypeAlias = Mapping[str, FeatureValue]
Patients: TypeAlias = Patient | Sequence[Patient]


def classify_request(
    images: Images,
    model: str,
    version: str,
    top_k: int,
    reasons: ImageReasons | None = None,
    frame: int = 0,
    max_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    *,
    preview: bool = False,
) -> image_pb.ClassifyRequest:
    """Builds the request for one or more images.

    Raises:
        OSError: a file cannot be read.
        TypeError: an image is not an ImageSource, or its array is not uint8.
        ValueError: an image cannot be sent unchanged, or the frame is not from 0 to 2 ** 32 - 1.
        ResourceExhaustedError: the images have more than `max_bytes` in total.
    """
    return image_pb.ClassifyRequest(
        model_name=model,
        model_version=version,
        images=to_images(images, frame, max_bytes),
        top_k=top_k,
        request_id=uuid4().hex,
        reasons=None if reasons is None else reasons.to_proto(),
        preview=preview,
    )


def predict_request(
    patients: Patients, model: str, version: str, reasons: RiskReasons | None = None
) -> risk_pb.PredictRequest:
    """Builds the request for one or more patients.

    NaN is sent unchanged and rejected by the server: a missing value is None.

    Raises:
        TypeError: a patient is not a mapping, or a value is not a number, a string or None.
    """
    records: Sequence[object] = [patients] if isinstance(patients, Mapping) else patients
    if not isinstance(records, Sequence) or isinstance(records, (str, bytes, bytearray)):
        raise TypeError(
            f"patients is a {type(patients).__name__}; expected a mapping of features to values, or a list of them "
            '(for a DataFrame: frame.to_dict("records"))'
        )
    return risk_pb.PredictRequest(
        model_name=model,
        model_version=version,
        patients=[_patient(record, f"patients[{index}]") for index, record in enumerate(records)],
        request_id=uuid4().hex,
        reasons=None if reasons is None else reasons.to_proto(),
    )


def _patient(record: object, field: str) -> risk_pb.Patient:
    if not isinstance(record, Mapping):
        raise TypeError(f"{field} is a {type(record).__name__}; expected a mapping of features to values")
    return risk_pb.Patient(
        features=[
            risk_pb.FeatureEntry(key=name, value=_feature_value(value, f"{field}.features[{name}]"))
            for name, value in record.items()
        ]
    )


def _feature_value(value: FeatureValue, field: str) -> risk_pb.FeatureValue | None:
    match value:
        case None:
            return None
        case str():
            return risk_pb.FeatureValue(category=value)
        case int() | float() | np.integer() | np.floating() | np.bool_():
            return risk_pb.FeatureValue(number=float(value))
    raise TypeError(f"{field} is a {type(value).__name__}; expected a number, the name of a category, or None")


def classification_response(reply: image_pb.ClassifyResponse) -> results.ClassificationResponse:
    """Converts the response to a ClassifyRequest."""
    return results.ClassificationResponse(
        reply.model_name, reply.model_version, tuple(_image_result(one) for one in reply.results), reply.request_id
    )


def _image_result(one: image_pb.ImageResult) -> results.ImageResult:
    decision = one.decision
    return results.ImageResult(
        labels=tuple(results.LabelProbability(entry.label, entry.probability) for entry in one.labels),
        decision=results.Decision(
            label=decision.label,
            operating_point=decision.operating_point,
            positive_label=decision.positive_label,
            threshold=decision.threshold if decision.operating_point else None,
        ),
        warnings=image_warnings(one.warnings),
        uncertainty=one.uncertainty if one.HasField("uncertainty") else None,
        novelty=one.novelty if one.HasField("novelty") else None,
        class_activation=_reason_map(one.class_activation) if one.HasField("class_activation") else None,
        occlusion=_reason_map(one.occlusion) if one.HasField("occlusion") else None,
        feature_maps=tuple(map(_feature_maps, one.feature_maps)),
        sop_instance_uid=one.sop_instance_uid,
        preview_png=one.preview_png,
        frames=one.frames or 1,
    )


def image_warnings(warnings: Iterable[image_pb.ImageWarning]) -> tuple[results.ImageWarning, ...]:
    """Converts the warnings of an image."""
    return tuple(results.ImageWarning(results.ImageWarningKind(one.kind), one.message) for one in warnings)


def _reason_map(one: image_pb.ReasonMap) -> results.ReasonMap:
    values = np.array(one.values, np.float32).reshape(one.height, one.width)
    return results.ReasonMap(one.label, values, one.overlay_png)


def _feature_maps(one: image_pb.FeatureMaps) -> results.FeatureMaps:
    values = np.frombuffer(one.values, "<f4").reshape(one.channels, one.height, one.width)
    return results.FeatureMaps(one.layer, values.astype(np.float32))


def risk_response(reply: risk_pb.PredictResponse) -> results.RiskResponse:
    """Converts the response to a PredictRequest."""
    return results.RiskResponse(
        reply.model_name, reply.model_version, tuple(_patient_result(one) for one in reply.results), reply.request_id
    )


def _patient_result(one: risk_pb.PatientResult) -> results.PatientResult:
    return results.PatientResult(
        risks=tuple(
            results.HorizonRisk(
                entry.horizon, entry.time, entry.risk, entry.uncertainty if entry.HasField("uncertainty") else None
            )
            for entry in one.risks
        ),
        survival=results.SurvivalCurve(
            times=np.array(one.survival.times, dtype=np.float64),
            probabilities=np.array(one.survival.probabilities, dtype=np.float32),
        ),
        risk_group=one.risk_group,
        warnings=tuple(
            results.PatientWarning(results.PatientWarningKind(warning.kind), warning.feature, warning.message)
            for warning in one.warnings
        ),
        novelty=one.novelty if one.HasField("novelty") else None,
        shapley=_shapley(one.shapley) if one.HasField("shapley") else None,
        what_if=_what_if(one.what_if) if one.HasField("what_if") else None,
    )


def _shapley(one: risk_pb.ShapleyValues) -> results.ShapleyValues:
    contributions = tuple(results.Contribution(entry.feature, entry.value) for entry in one.contributions)
    return results.ShapleyValues(one.horizon, one.base_risk, contributions)


def _what_if(one: risk_pb.WhatIfCurve) -> results.WhatIfCurve:
    points = tuple(
        results.WhatIfPoint(
            point.value.category if point.value.WhichOneof("value") == "category" else point.value.number, point.risk
        )
        for point in one.points
    )
    return results.WhatIfCurve(one.horizon, one.feature, points)


def classification_outcome(reply: image_pb.ClassifyStreamResponse) -> results.ClassificationResponse | InferenceError:
    """Converts one response of ClassifyStream."""
    return from_status(reply.error) if reply.HasField("error") else classification_response(reply.response)


def risk_outcome(reply: risk_pb.PredictStreamResponse) -> results.RiskResponse | InferenceError:
    """Converts one response of PredictStream."""
    return from_status(reply.error) if reply.HasField("error") else risk_response(reply.response)


def model_summaries(reply: catalog_pb.ListModelsResponse) -> list[results.ModelSummary]:
    """Converts the response to a ListModelsRequest."""
    return [
        results.ModelSummary(
            one.name, one.version, results.Task(one.task), one.title, ready=one.ready, provider=one.provider
        )
        for one in reply.models
    ]


def model_description(model: str, reply: catalog_pb.GetManifestResponse) -> results.ModelDescription:
    """Converts the response to a GetManifestRequest for `model`."""
    return results.ModelDescription(model, reply.model_version, reply.sha256, reply.manifest)
