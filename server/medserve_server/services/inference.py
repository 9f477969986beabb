"""The service inference.GRPCInferenceService: the Open Inference Protocol with Triton's extensions."""

from collections.abc import AsyncIterator, Awaitable
from functools import partial
from importlib.metadata import version

import numpy as np

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference import model_config_pb2 as config_pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceServicer
from medserve_proto.v1.manifest_pb2 import ImageSegmentationTask
from medserve_server.call_context import Context
from medserve_server.engine.manifest.segmentation import input_shape
from medserve_server.engine.model import Model
from medserve_server.engine.work import Arrays
from medserve_server.errors import FieldViolation, InvalidInput, NotFound, ServingError, Unavailable
from medserve_server.inputs.patients import PatientReader
from medserve_server.security.auth import GRANT
from medserve_server.services import codec
from medserve_server.services.api import Job, RowsApi
from medserve_server.services.server_context import ServerContext
from medserve_server.status import to_status
from medserve_server.telemetry.metrics import Duration

PLATFORM = "onnxruntime_onnx"  # Triton's platform name for ONNX Runtime
EXTENSIONS = ["model_configuration", "model_repository", "statistics"]
NO_EFFECT = frozenset({"unload_dependents"})  # parameter of RepositoryModelUnload: models here have no dependents


class Inference(
    RowsApi[pb.ModelInferRequest, pb.ModelInferResponse, pb.ModelStreamInferResponse], GRPCInferenceServiceServicer
):
    """Tensor-level inference for all models, with or without a manifest."""

    name = "inference"
    method = "/inference.GRPCInferenceService/ModelInfer"
    request_type = pb.ModelInferRequest
    id_field = "id"

    def __init__(self, server: ServerContext) -> None:
        super().__init__(server)
        self._control = server.control

    def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> Awaitable[pb.ModelInferResponse]:
        """Answers one request."""
        return self.unary(request, context)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answers a stream of requests in order; a failed request is answered with an error in its position."""
        async for response in self.stream(request_iterator, context):
            yield response

    def in_stream(
        self, request: pb.ModelInferRequest, outcome: pb.ModelInferResponse | ServingError
    ) -> pb.ModelStreamInferResponse:
        """Wraps a response or an error as a stream response."""
        if isinstance(outcome, ServingError):
            failed = pb.ModelInferResponse(id=request.id, model_name=request.model_name)
            return pb.ModelStreamInferResponse(error_message=to_status(outcome).message, infer_response=failed)
        return pb.ModelStreamInferResponse(infer_response=outcome)

    def estimate_load(self, request: pb.ModelInferRequest) -> tuple[int, int]:
        """Returns one row and the parameter `priority`; shapes are not trusted before they are validated."""
        return 1, codec.scheduling(request)[0]

    def read(self, model: Model, request: pb.ModelInferRequest) -> Job[pb.ModelInferResponse]:
        """Decodes the tensors and validates them against the graph, and where it leaves them free, the manifest."""
        session = model.session
        decoded = codec.decode(
            request, session.inputs, session.outputs, batched=model.max_batch_rows > 0, max_rows=self._max_rows
        )
        if isinstance(model.reader, PatientReader):
            _check_patients(model.reader, decoded)
        if model.manifest is not None and model.manifest.HasField("image_segmentation"):
            _check_tiles(model.manifest.image_segmentation, decoded)
        return Job(
            decoded.inputs,
            decoded.rows,
            decoded.outputs or model.output_names,
            partial(_response, request.id, model, decoded.raw),
            decoded.priority,
            decoded.timeout,
        )

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Reports that the server is live, which is the case whenever it responds."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Returns whether all models are loaded, none hangs, and the server is not stopping."""
        hangs = any(model.hangs for model in self._models)
        return pb.ServerReadyResponse(ready=self._models.ready and not hangs and not self._stopping.is_set())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Returns whether a model accepts requests; false for an unknown model."""
        try:
            return pb.ModelReadyResponse(ready=not self._get(request).hangs)
        except (NotFound, Unavailable):
            return pb.ModelReadyResponse(ready=False)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Returns the name, version and extensions of the server."""
        return pb.ServerMetadataResponse(name="medserve", version=version("medserve"), extensions=EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """Returns the input and output tensors of a model."""
        model = self._get(request)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        session = model.session
        return pb.ModelMetadataResponse(
            name=model.name,
            versions=self._models.versions(model.name),
            platform=PLATFORM,
            inputs=[tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in session.inputs],
            outputs=[tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in session.outputs],
        )

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        """Returns the configuration with which Triton would serve this model in the same way."""
        return pb.ModelConfigResponse(config=_config(self._get(request)))

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        """Returns request counts and cumulative durations, for one model or for all."""
        if not request.name:
            models = list(self._models)
        elif request.version:
            models = [self._get(request)]
        else:
            name = self._get(request).name
            models = [model for model in self._models if model.name == name]
        return pb.ModelStatisticsResponse(model_stats=[_statistics(model) for model in models])

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        """Returns all versions in the repository with their state and, if not ready, the reason."""
        index = pb.RepositoryIndexResponse.ModelIndex
        return pb.RepositoryIndexResponse(
            models=[
                index(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
                for entry in await self._control.index()
                if entry.state == "READY" or not request.ready
            ]
        )

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Loads a model from the repository; requires --model-control explicit."""
        _check_control(request, frozenset())
        await self._control.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Unloads a model; requires --model-control explicit."""
        _check_control(request, NO_EFFECT)
        await self._control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def _get(
        self,
        request: pb.ModelReadyRequest | pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest,
    ) -> Model:
        lists_models = GRANT.get().lists_models
        return self._models.get(request.name, request.version, "name", "version", lists_models=lists_models)


def _response(request_id: str, model: Model, raw: bool, outputs: Arrays) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request_id)
    codec.encode(outputs, model.session.outputs, response, raw=raw)
    return response


def _check_control(
    request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest, known: frozenset[str]
) -> None:
    """Refuses fields that would otherwise be ignored: another repository, a configuration, files."""
    problems = [
        FieldViolation(f"parameters[{name[:128]}]", "is not a parameter that this server supports")
        for name in sorted(request.parameters)
        if name not in known
    ]
    if request.repository_name:
        problems.append(
            FieldViolation("repository_name", "is set, but the server has only one repository; leave it empty")
        )
    if problems:
        raise InvalidInput(problems)


def _check_tiles(task: ImageSegmentationTask, request: codec.InferRequest) -> None:
    """Refuses inputs of a segmentation model that are larger than its tiles, whose runs need a known memory."""
    sizes, stride = input_shape(task)[:2], task.input.stride
    shape = request.inputs["image"].shape[1:3]
    if any(not 0 < given <= size or given % stride for given, size in zip(shape, sizes, strict=True)):
        raise InvalidInput.of(
            "inputs[image].shape",
            f"has height and width {list(shape)}, expected multiples of {stride} up to {list(sizes)}; "
            "medserve.v1.ImageSegmentation takes images of any size",
        )


def _check_patients(reader: PatientReader, request: codec.InferRequest) -> None:
    """Applies the same range checks to raw rows as to named features, so that this API cannot bypass them."""
    features = request.inputs["features"].astype(np.float32, copy=False)
    if problems := list(reader.check(features)):
        raise InvalidInput([FieldViolation("inputs[features]", problem) for problem in problems])


def _config(model: Model) -> config_pb.ModelConfig:
    session = model.session
    first = 1 if model.max_batch_rows else 0  # Triton omits the batch axis
    config = config_pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend="onnxruntime",
        max_batch_size=model.max_batch_rows,
        default_model_filename="model.onnx",
        instance_group=[
            config_pb.ModelInstanceGroup(
                name=model.name,
                count=1,
                kind=config_pb.ModelInstanceGroup.KIND_GPU
                if session.provider == "cuda"
                else config_pb.ModelInstanceGroup.KIND_CPU,
            )
        ],
        parameters={
            "execution_provider": config_pb.ModelParameter(string_value=session.provider),
            "threads": config_pb.ModelParameter(string_value=str(session.threads)),
        },
    )
    for spec in session.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec.datatype), dims=spec.shape[first:])
    for spec in session.outputs:
        config.output.add(name=spec.name, data_type=_data_type(spec.datatype), dims=spec.shape[first:])
    if model.max_batch_rows:
        config.dynamic_batching.max_queue_delay_microseconds = 0
    return config


def _data_type(datatype: str) -> config_pb.DataType.ValueType:
    return config_pb.DataType.Value("TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}")


def _statistics(model: Model) -> pb.ModelStatistics:
    statistics = model.metrics.statistics
    return pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=int(statistics.last_inference * 1000),
        inference_count=statistics.rows,
        execution_count=statistics.executions,
        inference_stats=pb.InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail),
            queue=_duration(statistics.queue),
            compute_infer=_duration(statistics.compute),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=rows, compute_infer=_duration(duration))
            for rows, duration in sorted(statistics.by_batch_rows.items())
        ],
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=int(duration.seconds * 1e9))
