"""The service medserve.v1.ModelCatalog."""

from medserve_proto.v1 import model_catalog_pb2 as pb
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogServicer
from medserve_server.call_context import Context
from medserve_server.engine.model import Model
from medserve_server.errors import WrongModel
from medserve_server.registry.registry import ModelRegistry
from medserve_server.security.auth import GRANT

TASKS = {
    "image_classification": pb.TASK_IMAGE_CLASSIFICATION,
    "image_segmentation": pb.TASK_IMAGE_SEGMENTATION,
    "patient_risk": pb.TASK_PATIENT_RISK,
}


class ModelCatalog(ModelCatalogServicer):
    """Lists the served models and returns their manifests."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists every version of every model."""
        return pb.ListModelsResponse(models=[_summary(model) for model in self._models])

    async def GetManifest(self, request: pb.GetManifestRequest, context: Context) -> pb.GetManifestResponse:
        """Returns the manifest embedded in the model's file."""
        model = self._models.get(request.model_name, request.model_version, lists_models=GRANT.get().lists_models)
        if model.manifest is None:
            raise WrongModel(
                f"model {model.name} has no manifest; use ModelMetadata of the Open Inference Protocol for its tensors"
            )
        return pb.GetManifestResponse(model_version=model.version, manifest=model.manifest, sha256=model.sha256)


def _summary(model: Model) -> pb.ModelSummary:
    task = model.manifest.WhichOneof("task") if model.manifest else None
    return pb.ModelSummary(
        name=model.name,
        version=model.version,
        task=TASKS[task] if task else pb.TASK_UNSPECIFIED,
        title=model.manifest.title if model.manifest else "",
        ready=True,
        provider=model.session.provider,
    )
