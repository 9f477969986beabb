"""What the server answers, as plain typed values."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import Manifest


class OpenEnum(IntEnum):
    """An enum of the contract. A number of a newer server that this client does not know becomes 0."""

    @classmethod
    def _missing_(cls, value: object) -> Self:  # noqa: ARG003 - the signature is the enum's
        return cls(0)


class Task(OpenEnum):
    """What a model is asked to do."""

    UNSPECIFIED = 0
    IMAGE_CLASSIFICATION = 1
    PATIENT_RISK = 2


class ImageWarningKind(OpenEnum):
    """What was done to a picture before the model saw it, or what its reader should know of it.

    Unfamiliar: it is unlike those of the training data. First of several: the file holds more pictures or frames. Range
    unused: its samples use a small part of the range of their bits, and are not stretched. Profile ignored: a color
    profile other than sRGB was not applied.
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


class PatientWarningKind(OpenEnum):
    """Why a patient's risk deserves a second look."""

    UNSPECIFIED = 0
    OUT_OF_TRAINING_RANGE = 1
    IMPUTED = 2
    UNFAMILIAR = 3


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One version of a model that the server has.

    Attributes:
        name: as in the repository and in requests.
        version: a number, as text.
        task: unspecified for a model without a manifest.
        title: one line from the manifest.
        ready: whether it answers.
        provider: the ONNX Runtime execution provider that runs it, e.g. "cpu".
    """

    name: str
    version: str
    task: Task
    title: str
    ready: bool
    provider: str


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """All about one version of a model.

    Attributes:
        name: as it was asked for.
        version: the version that was described.
        sha256: of the ONNX file, in hexadecimal.
        manifest: the manifest as the contract has it (proto/medserve/v1/manifest.proto).
    """

    name: str
    version: str
    sha256: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """One label of a picture, with its probability from 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The label decided for.

    Attributes:
        label: the label.
        operating_point: name of the operating point; empty: the most probable label was taken.
        positive_label: the label whose probability is held against the threshold; empty without an operating point.
        threshold: from 0 to 1; None without an operating point.
    """

    label: str
    operating_point: str
    positive_label: str
    threshold: float | None


@dataclass(frozen=True, slots=True)
class ImageWarning:
    """What was done to a picture, for a program (kind) and for a reader (message)."""

    kind: ImageWarningKind
    message: str


# Those with an array in them are compared by identity: == of two arrays is an array.
@dataclass(frozen=True, slots=True, eq=False)
class ReasonMap:
    """Why a picture got its label, place by place.

    Attributes:
        label: the label it speaks of.
        values: float32 [rows, columns], a grid over the picture that the model saw. Occlusion: how far the
            probability falls where that place is covered; class activation: the place's share of the label's score.
        overlay_png: the map drawn over the picture; empty unless asked for.
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
    """The answer for one picture.

    Attributes:
        labels: the most probable first.
        decision: the label decided for.
        warnings: what was done to the picture, and whether it is unlike those of the training data.
        uncertainty: standard deviation of the members' probabilities of the first label; None where the model is
            no ensemble.
        novelty: how unlike the training data the picture is; None where the model does not measure it.
        class_activation: as asked for.
        occlusion: as asked for.
        feature_maps: as asked for.
        sop_instance_uid: of a DICOM file; empty for another file, or where it has none.
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


@dataclass(frozen=True, slots=True)
class ClassificationResponse:
    """The answer to one request: a result for each picture, in the same order.

    The server's log names the request by `request_id`.
    """

    model_name: str
    model_version: str
    results: tuple[ImageResult, ...]
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class HorizonRisk:
    """The probability of the event by a horizon.

    Attributes:
        horizon: its label, e.g. "5 years".
        time: the same in the manifest's time unit.
        risk: from 0 to 1.
        uncertainty: standard deviation of the members' risks; None where the model is no ensemble.
    """

    horizon: str
    time: float
    risk: float
    uncertainty: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalCurve:
    """The probability of no event up to each time.

    Attributes:
        times: float64 [T], rising, in the manifest's time unit.
        probabilities: float32 [T], never rising.
    """

    times: NDArray[np.float64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PatientWarning:
    """Why a patient's risk deserves a second look: for a program (kind, feature) and for a reader (message)."""

    kind: PatientWarningKind
    feature: str
    message: str


@dataclass(frozen=True, slots=True)
class Contribution:
    """How far a feature moves the risk, above 0 upwards."""

    feature: str
    value: float


@dataclass(frozen=True, slots=True)
class ShapleyValues:
    """The risk at a horizon taken apart: `base_risk` and all contributions add up to it.

    Attributes:
        horizon: label of the horizon.
        base_risk: mean risk of the manifest's background patients.
        contributions: one for each feature, in the order of the manifest.
    """

    horizon: str
    base_risk: float
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class WhatIfPoint:
    """The risk with another value of the feature: a number, or the name of a category."""

    value: float | str
    risk: float


@dataclass(frozen=True, slots=True)
class WhatIfCurve:
    """The risk at a horizon over the values of one feature, all others as they are."""

    horizon: str
    feature: str
    points: tuple[WhatIfPoint, ...]


@dataclass(frozen=True, slots=True)
class PatientResult:
    """The answer for one patient.

    Attributes:
        risks: one for each horizon of the manifest.
        survival: the curve that they are read off.
        risk_group: its label.
        warnings: why the risk deserves a second look.
        novelty: how unlike the training data the patient is; None where the model does not measure it.
        shapley: as asked for.
        what_if: as asked for.
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
    """The answer to one request: a result for each patient, in the same order.

    The server's log names the request by `request_id`.
    """

    model_name: str
    model_version: str
    results: tuple[PatientResult, ...]
    request_id: str = ""
