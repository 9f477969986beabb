"""Real gRPC servers on real ports: `serve` for any service, and `clinic`, a small server with two models."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import manifest_pb2 as manifest_pb
from medserve_proto.v1 import model_catalog_pb2 as catalog_pb
from medserve_proto.v1 import patient_risk_pb2 as risk_pb
from medserve_proto.v1.image_classification_pb2_grpc import (
    ImageClassificationServicer,
    add_ImageClassificationServicer_to_server,
)
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogServicer, add_ModelCatalogServicer_to_server
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskServicer, add_PatientRiskServicer_to_server
from servers.small_server import Serve

MANIFESTS = {
    "lungs": manifest_pb.Manifest(
        schema_version=1,
        name="lungs",
        title="Lungs in test pictures",
        image_classification=manifest_pb.ImageClassificationTask(
            input=manifest_pb.ImageInput(height=28, width=28, color_space=manifest_pb.COLOR_SPACE_GRAY),
            labels=["normal", "pneumonia"],
            operating_points=[
                manifest_pb.OperatingPoint(name="sensitive", positive_label="pneumonia", threshold=0.25),
            ],
            default_operating_point="sensitive",
        ),
    ),
    "relapse": manifest_pb.Manifest(
        schema_version=1,
        name="relapse",
        title="Relapse in test patients",
        patient_risk=manifest_pb.PatientRiskTask(
            features=[
                manifest_pb.Feature(
                    name="age",
                    unit="years",
                    numeric=manifest_pb.NumericRange(valid_min=0, valid_max=120, training_min=21, training_max=80),
                    required=True,
                ),
                manifest_pb.Feature(
                    name="tumor_size",
                    unit="mm",
                    numeric=manifest_pb.NumericRange(valid_min=0, valid_max=300, training_min=3, training_max=120),
                    imputed_as=25,
                ),
                manifest_pb.Feature(
                    name="grade", categorical=manifest_pb.Categories(names=["I", "II", "III"]), imputed_as=1
                ),
            ],
            event="relapse",
            time_unit="days",
            horizons=[manifest_pb.Horizon(label="1 year", time=365), manifest_pb.Horizon(label="5 years", time=1826)],
            risk_groups=[
                manifest_pb.RiskGroup(label="low", risk_below=0.5),
                manifest_pb.RiskGroup(label="high", risk_below=1.1),
            ],
            reference_horizon="5 years",
        ),
        evaluations=[
            manifest_pb.Evaluation(
                data="made up",
                split="test",
                size=7,
                metrics=[manifest_pb.Metric(name="concordance_index", value=0.625)],
            )
        ],
    ),
}


def _refuse(context: grpc.ServicerContext, violations: Sequence[tuple[str, str]]) -> NoReturn:
    """Aborts as the server does: with a message, and every violation in the details."""
    status = _status(violations)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, status.message)


def _status(violations: Sequence[tuple[str, str]]) -> Status:
    status = Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message=": ".join(violations[0]))
    details = BadRequest(
        field_violations=[BadRequest.FieldViolation(field=field, description=text) for field, text in violations]
    )
    status.details.add().Pack(details)
    return status


class _Catalog(ModelCatalogServicer):
    def ListModels(  # noqa: N802 - the contract's name
        self, _request: catalog_pb.ListModelsRequest, _context: grpc.ServicerContext
    ) -> catalog_pb.ListModelsResponse:
        tasks = {"lungs": catalog_pb.TASK_IMAGE_CLASSIFICATION, "relapse": catalog_pb.TASK_PATIENT_RISK}
        return catalog_pb.ListModelsResponse(
            models=[
                catalog_pb.ModelSummary(
                    name=name, version="1", task=tasks[name], title=manifest.title, ready=True, provider="cpu"
                )
                for name, manifest in MANIFESTS.items()
            ]
        )

    def GetManifest(  # noqa: N802
        self, request: catalog_pb.GetManifestRequest, context: grpc.ServicerContext
    ) -> catalog_pb.GetManifestResponse:
        if request.model_name not in MANIFESTS or request.model_version not in ("", "1"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_name} here; there are lungs, relapse")
        return catalog_pb.GetManifestResponse(
            model_version="1", manifest=MANIFESTS[request.model_name], sha256="5ca1ab1e"
        )


class _Images(ImageClassificationServicer):
    """Rejects files that start with "bad", and reports in a warning how each image arrived."""

    def Classify(  # noqa: N802
        self, request: image_pb.ClassifyRequest, context: grpc.ServicerContext
    ) -> image_pb.ClassifyResponse:
        if violations := self._violations(request):
            _refuse(context, violations)
        return self._answer(request)

    def ClassifyStream(  # noqa: N802
        self, request_iterator: Iterator[image_pb.ClassifyRequest], _context: grpc.ServicerContext
    ) -> Iterator[image_pb.ClassifyStreamResponse]:
        for request in request_iterator:
            if violations := self._violations(request):
                yield image_pb.ClassifyStreamResponse(error=_status(violations))
            else:
                yield image_pb.ClassifyStreamResponse(response=self._answer(request))

    def _violations(self, request: image_pb.ClassifyRequest) -> list[tuple[str, str]]:
        if request.model_name != "lungs":
            return [("model_name", f"{request.model_name} is not a model for pictures")]
        return [
            (f"images[{index}].encoded", "not a PNG, JPEG or TIFF file")
            for index, image in enumerate(request.images)
            if image.encoded.startswith(b"bad")
        ]

    def _answer(self, request: image_pb.ClassifyRequest) -> image_pb.ClassifyResponse:
        labels = [
            image_pb.LabelProbability(label="normal", probability=0.75),
            image_pb.LabelProbability(label="pneumonia", probability=0.25),
        ]
        results = [
            image_pb.ImageResult(
                labels=labels[: request.top_k or None],
                decision=image_pb.Decision(
                    label="pneumonia", operating_point="sensitive", threshold=0.25, positive_label="pneumonia"
                ),
                warnings=[image_pb.ImageWarning(kind=image_pb.ImageWarning.KIND_RESIZED, message=self._arrived(image))],
            )
            for image in request.images
        ]
        return image_pb.ClassifyResponse(model_name="lungs", model_version="1", results=results)

    def _arrived(self, image: image_pb.Image) -> str:
        if image.HasField("encoded"):
            return f"encoded {len(image.encoded)}" + f", frame {image.frame}" * bool(image.frame)
        return f"raw {list(image.raw.shape)} {image.raw.pixels.hex()}"


class _Risk(PatientRiskServicer):
    """Rejects numbers that are not finite or above 120, and reports received values in warnings."""

    def Predict(  # noqa: N802
        self, request: risk_pb.PredictRequest, context: grpc.ServicerContext
    ) -> risk_pb.PredictResponse:
        if violations := self._violations(request):
            _refuse(context, violations)
        return self._answer(request)

    def PredictStream(  # noqa: N802
        self, request_iterator: Iterator[risk_pb.PredictRequest], _context: grpc.ServicerContext
    ) -> Iterator[risk_pb.PredictStreamResponse]:
        for request in request_iterator:
            if violations := self._violations(request):
                yield risk_pb.PredictStreamResponse(error=_status(violations))
            else:
                yield risk_pb.PredictStreamResponse(response=self._answer(request))

    def _violations(self, request: risk_pb.PredictRequest) -> list[tuple[str, str]]:
        return [
            (f"patients[{index}].features[{entry.key}]", f"{entry.value.number:g} is not from 0 to 120")
            for index, patient in enumerate(request.patients)
            for entry in patient.features
            if not math.isfinite(entry.value.number) or entry.value.number > 120
        ]

    def _answer(self, request: risk_pb.PredictRequest) -> risk_pb.PredictResponse:
        results = [
            risk_pb.PatientResult(
                risks=[
                    risk_pb.HorizonRisk(horizon="1 year", time=365, risk=0.125),
                    risk_pb.HorizonRisk(horizon="5 years", time=1826, risk=0.5),
                ],
                survival=risk_pb.SurvivalCurve(times=[0, 365, 1826], probabilities=[1, 0.875, 0.5]),
                risk_group="high",
                warnings=[
                    risk_pb.PatientWarning(feature=entry.key, message=f"{entry.key} {self._arrived(entry)}")
                    for entry in patient.features
                ],
            )
            for patient in request.patients
        ]
        return risk_pb.PredictResponse(model_name="relapse", model_version="1", results=results)

    def _arrived(self, entry: risk_pb.FeatureEntry) -> str:
        match entry.value.WhichOneof("value"):
            case "number":
                return f"number {entry.value.number:g}"
            case "category":
                return f"category {entry.value.category}"
        return "missing"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers; each call takes a function that adds services, and returns the target."""
    servers = []

    def start(add_services: Callable[[grpc.Server], None]) -> str:
        server = grpc.server(ThreadPoolExecutor(max_workers=4))
        add_services(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(grace=None).wait()


@pytest.fixture
def clinic(serve: Serve) -> str:
    """The target of a server with the models `lungs` and `relapse`."""

    def add_services(server: grpc.Server) -> None:
        add_ModelCatalogServicer_to_server(_Catalog(), server)
        add_ImageClassificationServicer_to_server(_Images(), server)
        add_PatientRiskServicer_to_server(_Risk(), server)
        health = HealthServicer()
        health.set("", HealthCheckResponse.SERVING)
        health.set("medserve.v1.PatientRisk", HealthCheckResponse.NOT_SERVING)
        add_HealthServicer_to_server(health, server)

    return serve(add_services)
