"""Python client for a medserve server.

    from medserve_client import Client

    with Client("127.0.0.1:8001") as client:
        response = client.classify("xray.png", model="chest-xray")
        print(response.results[0].decision.label)

`AsyncClient` provides the same methods for asyncio.
"""

from medserve_client.async_client import AsyncClient
from medserve_client.channel import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TARGET, DEFAULT_TIMEOUT, Tls
from medserve_client.client import Client
from medserve_client.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InferenceError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TlsMismatchError,
    UnauthenticatedError,
    UnavailableError,
)
from medserve_client.health import HealthStatus
from medserve_client.images import BinaryFile, Images, ImageSource, PilImage
from medserve_client.messages import FeatureValue, Patient, Patients
from medserve_client.reasons import ImageReasons, RiskReasons, WhatIf
from medserve_client.results import (
    ClassificationResponse,
    Contribution,
    Decision,
    FeatureMaps,
    HorizonRisk,
    ImageResult,
    ImageWarning,
    ImageWarningKind,
    LabelProbability,
    ModelDescription,
    ModelSummary,
    PatientResult,
    PatientWarning,
    PatientWarningKind,
    ReasonMap,
    RiskResponse,
    ShapleyValues,
    SurvivalCurve,
    Task,
    WhatIfCurve,
    WhatIfPoint,
)
from medserve_client.segmentation.messages import SegmentOptions
from medserve_client.segmentation.results import (
    Box,
    Interval,
    LabelResult,
    MaskFormat,
    MeasureResult,
    PixelSpacing,
    SegmentationResponse,
    SegmentationResult,
    SegmentedObject,
    SpacingSource,
)
from medserve_client.segmentation.run_length import RunLength

__all__ = [
    "DEFAULT_MAX_MESSAGE_BYTES",
    "DEFAULT_TARGET",
    "DEFAULT_TIMEOUT",
    "AsyncClient",
    "BinaryFile",
    "Box",
    "ClassificationResponse",
    "Client",
    "Contribution",
    "DeadlineExceededError",
    "Decision",
    "FailedPreconditionError",
    "FeatureMaps",
    "FeatureValue",
    "FieldViolation",
    "HealthStatus",
    "HorizonRisk",
    "ImageReasons",
    "ImageResult",
    "ImageSource",
    "ImageWarning",
    "ImageWarningKind",
    "Images",
    "InferenceError",
    "Interval",
    "InvalidArgumentError",
    "LabelProbability",
    "LabelResult",
    "MaskFormat",
    "MeasureResult",
    "ModelDescription",
    "ModelSummary",
    "NotFoundError",
    "OverloadedError",
    "Patient",
    "PatientResult",
    "PatientWarning",
    "PatientWarningKind",
    "Patients",
    "PermissionDeniedError",
    "PilImage",
    "PixelSpacing",
    "ReasonMap",
    "ResourceExhaustedError",
    "RiskReasons",
    "RiskResponse",
    "RunLength",
    "SegmentOptions",
    "SegmentationResponse",
    "SegmentationResult",
    "SegmentedObject",
    "ShapleyValues",
    "SpacingSource",
    "SurvivalCurve",
    "Task",
    "Tls",
    "TlsMismatchError",
    "UnauthenticatedError",
    "UnavailableError",
    "WhatIf",
    "WhatIfCurve",
    "WhatIfPoint",
]
