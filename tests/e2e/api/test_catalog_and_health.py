"""Model catalog, health and reflection."""

import hashlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from calls.bad_request import code_of
from medserve_proto.v1 import model_catalog_pb2 as pb
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from servers.server_process import REPOSITORY

SERVICES = [
    "medserve.v1.ImageClassification",
    "medserve.v1.ImageSegmentation",
    "medserve.v1.PatientRisk",
    "medserve.v1.ModelCatalog",
    "inference.GRPCInferenceService",
]


def test_catalog_lists_models(channel: grpc.Channel) -> None:
    models = ModelCatalogStub(channel).ListModels(pb.ListModelsRequest()).models
    assert [(model.name, model.version, model.task, model.ready, model.provider) for model in models] == [
        ("breast-cancer-risk", "1", pb.TASK_PATIENT_RISK, True, "cpu"),
        ("cell-nuclei", "1", pb.TASK_IMAGE_SEGMENTATION, True, "cpu"),
        ("chest-xray", "1", pb.TASK_IMAGE_CLASSIFICATION, True, "cpu"),
        ("fetal-head", "1", pb.TASK_IMAGE_SEGMENTATION, True, "cpu"),
    ]


def test_model_cards_are_stored_with_models_but_not_served(channel: grpc.Channel) -> None:
    models = ModelCatalogStub(channel).ListModels(pb.ListModelsRequest()).models
    files = {path.relative_to(REPOSITORY / "models") for path in REPOSITORY.glob("models/*/*/card.*")}
    expected = {Path(model.name, model.version, f"card.{kind}") for model in models for kind in ("md", "html")}
    assert models
    assert files == expected


def test_manifest_equals_that_in_the_file(channel: grpc.Channel) -> None:
    response = ModelCatalogStub(channel).GetManifest(pb.GetManifestRequest(model_name="chest-xray"))
    file = (REPOSITORY / "models/chest-xray/1/model.onnx").read_bytes()
    assert response.sha256 == hashlib.sha256(file).hexdigest()
    assert list(response.manifest.image_classification.labels) == ["normal", "pneumonia"]
    assert {evaluation.split for evaluation in response.manifest.evaluations} >= {"validation", "test"}


def test_missing_manifest_is_reported(zoo_channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ModelCatalogStub(zoo_channel).GetManifest(pb.GetManifestRequest(model_name="lookup"))
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_every_service_is_healthy(channel: grpc.Channel, service: str) -> None:
    stub: Any = HealthStub(channel)
    response = stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    stub: Any = HealthStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_services(channel: grpc.Channel) -> None:
    found = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert set(found) >= {*SERVICES, "grpc.health.v1.Health"}
