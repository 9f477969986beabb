"""Typed results of calls."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import Manifest


class OpenEnum(IntEnum):
    """A protobuf enum. A number from a newer server that this client does not know becomes 0."""

    @classmethod
    def _missing_(cls, value: object) -> Self:  # noqa: ARG003 - the signature is the enum's
        return cls(0)


class Task(OpenEnum):
    """The task of a model."""

    UNSPECIFIED = 0
    IMAGE_CLASSIFICATION = 1
    PATIENT_RISK = 2
    IMAGE_SEGMENTATION = 3


class ImageWarningKind(OpenEnum):
    """How an image was altered before inference, or what to consider when reading its result.

    COLOR_CONVERTED: to gray or to RGB. DEPTH_REDUCED: the values were converted to 8 bits.
    UNFAMILIAR: unlike the training data. FIRST_OF_SEVERAL: the file contains more images or frames. RANGE_UNUSED: the
    samples use a small part of their bit range and are not stretched. PROFILE_IGNORED: a color profile other than sRGB
    was not applied. ELEMENT_IGNORED: an element of a DICOM file was ignored. TILED: segmented in several tiles.
    SPACING_UNKNOWN: sizes are in pixels. MAGNIFIED: the pixel spacing is that at the detector, so that objects are
    smaller than measured.
    """

    UNSPECIFIED = 0
    RESIZED = 1
    CROPPED = 2
    COLOR_CONVERTED = 3
    DEPTH_REDUCED = 4
    UNFAMILIAR = 5
    FIRST_OF_SEVERAL = 6
    RANGE_UNUSED = 7
    PROFILE_IGNORED = 8
    ELEMENT_IGNORED = 9
    TILED = 10
    SPACING_UNKNOWN = 11
    MAGNIFIED = 12


class PatientWarningKind(OpenEnum):
    """Why a patient's risk should be reviewed."""

    UNSPECIFIED = 0
    OUT_OF_TRAINING_RANGE = 1
    IMPUTED = 2
    UNFAMILIAR = 3


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One version of a model in the server's model repository.

    Attributes:
        name: model name, as in the repository and in requests.
        version: version number, as a string.
        task: Task.UNSPECIFIED for a model without a manifest.
        title: one-line title from the manifest.
        ready: whether the model answers requests.
        provider: ONNX Runtime execution provider that runs it, e.g. "cpu".
    """

    name: str
    version: str
    task: Task
    title: str
    ready: bool
    provider: str


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Manifest of one version of a model.

    Attributes:
        name: model name, as requested.
        version: version that the manifest belongs to.
        sha256: SHA-256 of the ONNX file, in hexadecimal.
        manifest: the manifest message (proto/medserve/v1/manifest.proto).
    """

    name: str
    version: str
    sha256: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """A label of an image with its probability, from 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The predicted label and how it was chosen.

    Attributes:
        label: predicted label.
        operating_point: name of the operating point; empty if the most probable label was taken.
        positive_label: label whose probability is compared with the threshold; empty without an operating point.
        threshold: decision threshold, from 0 to 1; None without an operating point.
    """

    label: str
    operating_point: str
    positive_label: str
    threshold: float | None


@dataclass(frozen=True, slots=True)
class ImageWarning:
    """A warning about an image, machine-readable (`kind`) and human-readable (`message`)."""

    kind: ImageWarningKind
    message: str


# Classes with array attributes compare by identity: == of two arrays is an array.
@dataclass(frozen=True, slots=True, eq=False)
class ReasonMap:
    """An occlusion or class activation map of an image.

    Attributes:
        label: label that the map explains.
        values: float32 [rows, columns], a grid over the preprocessed image. Occlusion: drop in the label's probability
            when the cell is covered; class activation: the cell's share of the label's score.
        overlay_png: the map rendered over the image; empty unless requested.
    """

    label: str
    values: NDArray[np.float32]
    overlay_png: bytes


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMaps:
    """The activations of one layer, float32 [channels, height, width]."""

    layer: str
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The result for one image.

    Attributes:
        labels: labels, most probable first.
        decision: predicted label.
        warnings: how the image was altered, and whether it is unlike the training data.
        uncertainty: standard deviation of the ensemble members' probabilities of the first label; None if the model is
            not an ensemble.
        novelty: distance from the training data; None if the model does not measure it.
        class_activation: class activation map, if requested.
        occlusion: occlusion map, if requested.
        feature_maps: activations of the requested layers.
        sop_instance_uid: SOP Instance UID of a DICOM file; empty for other files, or if it has none.
        preview_png: the image as the model received it, as a PNG file; empty unless requested.
        frames: number of frames of a DICOM file; 1 for other images.
    """

    labels: tuple[LabelProbability, ...]
    decision: Decision
    warnings: tuple[ImageWarning, ...]
    uncertainty: float | None = None
    novelty: float | None = None
    class_activation: ReasonMap | None = None
    occlusion: ReasonMap | None = None
    feature_maps: tuple[FeatureMaps, ...] = ()
    sop_instance_uid: str = ""
    preview_png: bytes = b""
    frames: int = 1


@dataclass(frozen=True, slots=True)
class ClassificationResponse:
    """The response to one request: one result for each image, in request order.

    `request_id` identifies the request in the server's log.
    """

    model_name: str
    model_version: str
    results: tuple[ImageResult, ...]
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class HorizonRisk:
    """The probability of the event by a horizon.

    Attributes:
        horizon: label of the horizon, e.g. "5 years".
        time: the horizon in the manifest's time unit.
        risk: probability from 0 to 1.
        uncertainty: standard deviation of the ensemble members' risks; None if the model is not an ensemble.
    """

    horizon: str
    time: float
    risk: float
    uncertainty: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalCurve:
    """The survival function: the probability of no event up to each time.

    Attributes:
        times: float64 [T], increasing, in the manifest's time unit.
        probabilities: float32 [T], non-increasing.
    """

    times: NDArray[np.float64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PatientWarning:
    """A warning about a patient's risk, machine-readable (`kind`, `feature`) and human-readable (`message`)."""

    kind: PatientWarningKind
    feature: str
    message: str


@dataclass(frozen=True, slots=True)
class Contribution:
    """The Shapley value of a feature; positive values increase the risk."""

    feature: str
    value: float


@dataclass(frozen=True, slots=True)
class ShapleyValues:
    """Decomposition of the risk at a horizon into the sum of `base_risk` and all contributions.

    Attributes:
        horizon: label of the horizon.
        base_risk: mean risk of the manifest's background patients.
        contributions: one for each feature, in manifest order.
    """

    horizon: str
    base_risk: float
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class WhatIfPoint:
    """The risk at one value of the feature: a number or the name of a category."""

    value: float | str
    risk: float


@dataclass(frozen=True, slots=True)
class WhatIfCurve:
    """The risk at a horizon as a function of one feature, with all other features unchanged."""

    horizon: str
    feature: str
    points: tuple[WhatIfPoint, ...]


@dataclass(frozen=True, slots=True)
class PatientResult:
    """The result for one patient.

    Attributes:
        risks: one for each horizon of the manifest.
        survival: survival function that the risks are read from.
        risk_group: label of the risk group.
        warnings: why the risk should be reviewed.
        novelty: distance from the training data; None if the model does not measure it.
        shapley: Shapley values, if requested.
        what_if: what-if curve, if requested.
    """

    risks: tuple[HorizonRisk, ...]
    survival: SurvivalCurve
    risk_group: str
    warnings: tuple[PatientWarning, ...]
    novelty: float | None = None
    shapley: ShapleyValues | None = None
    what_if: WhatIfCurve | None = None


@dataclass(frozen=True, slots=True)
class RiskResponse:
    """The response to one request: one result for each patient, in request order.

    `request_id` identifies the request in the server's log.
    """

    model_name: str
    model_version: str
    results: tuple[PatientResult, ...]
    request_id: str = ""
