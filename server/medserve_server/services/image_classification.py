"""medserve.v1.ImageClassification."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import image_classification_pb2 as pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationServicer
from medserve_proto.v1.manifest_pb2 import ImageClassificationTask
from medserve_server.config import Settings
from medserve_server.errors import FieldViolation, InferenceFailed, InvalidInput, ServingError, WrongModel
from medserve_server.images import ImageReader, ImageWarning, Pixels
from medserve_server.interceptors import Context, to_status
from medserve_server.model import Model
from medserve_server.repository import ModelRepository
from medserve_server.services.deadline import deadline_of
from medserve_server.services.streaming import answer_in_order

API = "image_classification"


class ImageClassification(ImageClassificationServicer):
    """Reads pictures, asks the model, and names what it found."""

    def __init__(
        self, models: ModelRepository, settings: Settings, stopping: asyncio.Event, decoders: ThreadPoolExecutor
    ) -> None:
        self._models = models
        self._max_images = settings.max_request_rows
        self._window = settings.stream_window
        self._stopping = stopping
        self._decoders = decoders

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """Answers one request."""
        return await self._classify(request, deadline_of(context))

    async def ClassifyStream(
        self, request_iterator: AsyncIterator[pb.ClassifyRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """Answers many requests in their order, errors in their place."""
        deadline = deadline_of(context)

        async def answer(request: pb.ClassifyRequest) -> pb.ClassifyStreamResponse:
            try:
                response = await self._classify(request, deadline)
            except ServingError as error:
                return pb.ClassifyStreamResponse(error=to_status(error), request_id=request.request_id)
            return pb.ClassifyStreamResponse(response=response, request_id=request.request_id)

        async for response in answer_in_order(request_iterator, answer, self._stopping, self._window):
            yield response

    async def _classify(self, request: pb.ClassifyRequest, deadline: float | None) -> pb.ClassifyResponse:
        model = self._models.get(request.model_name, request.model_version)
        with model.metrics.request(API):
            if model.manifest is None or not isinstance(model.reader, ImageReader):
                raise WrongModel(f"model {model.name} does not classify images; ModelCatalog lists what each one does")
            if not 1 <= len(request.images) <= self._max_images:
                raise InvalidInput.of("images", f"has {len(request.images)} entries, expected 1 to {self._max_images}")
            pictures, warnings = await self._read(request, model.reader)
            outputs = await model.infer({"image": pictures}, len(pictures), deadline=deadline)
            probabilities = outputs["probabilities"]
            if not np.isfinite(probabilities).all():
                raise InferenceFailed(f"model {model.name} gave a probability that is no number")
            return _response(request, model, model.manifest.image_classification, probabilities, warnings)

    async def _read(self, request: pb.ClassifyRequest, reader: ImageReader) -> tuple[Pixels, list[list[ImageWarning]]]:
        """Stacks all images to uint8 [images, height, width, channels]."""
        if any(image.WhichOneof("source") == "encoded" for image in request.images):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._decoders, _read_images, request, reader)
        return _read_images(request, reader)


def _read_images(request: pb.ClassifyRequest, reader: ImageReader) -> tuple[Pixels, list[list[ImageWarning]]]:
    pictures = np.empty((len(request.images), reader.height, reader.width, reader.channels), np.uint8)
    warnings: list[list[ImageWarning]] = []
    violations: list[FieldViolation] = []
    for index, image in enumerate(request.images):
        field = f"images[{index}]"
        found: list[ImageWarning] = []
        try:
            match image.WhichOneof("source"):
                case "encoded":
                    pictures[index], found = reader.from_encoded(image.encoded, f"{field}.encoded")
                case "raw":
                    pictures[index] = reader.from_raw(image.raw.pixels, tuple(image.raw.shape), f"{field}.raw")
                case _:
                    raise InvalidInput.of(field, "is empty; set encoded or raw")
        except InvalidInput as error:
            violations += error.violations
        warnings.append(found)
    if violations:
        raise InvalidInput(violations)
    return pictures, warnings


def _response(
    request: pb.ClassifyRequest,
    model: Model,
    task: ImageClassificationTask,
    probabilities: NDArray[np.generic],
    warnings: list[list[ImageWarning]],
) -> pb.ClassifyResponse:
    response = pb.ClassifyResponse(model_name=model.name, model_version=model.version, request_id=request.request_id)
    labels = list(task.labels)
    top = request.top_k or len(labels)
    for row, found in zip(probabilities.tolist(), warnings, strict=True):
        result = response.results.add(decision=_decision(task, labels, row))
        for index in sorted(range(len(labels)), key=row.__getitem__, reverse=True)[:top]:
            result.labels.add(label=labels[index], probability=row[index])
        for warning in found:
            result.warnings.add(kind=f"KIND_{warning.kind}", message=warning.message)
    return response


def _decision(task: ImageClassificationTask, labels: list[str], row: list[float]) -> pb.Decision:
    """Decides at the default operating point, or for the most probable label where there is none."""
    point = next((point for point in task.operating_points if point.name == task.default_operating_point), None)
    if point is None:
        return pb.Decision(label=labels[row.index(max(row))])
    positive = labels.index(point.positive_label)
    if row[positive] >= point.threshold:
        label = point.positive_label
    else:  # the most probable of the others
        label = labels[max((index for index in range(len(labels)) if index != positive), key=row.__getitem__)]
    return pb.Decision(
        label=label, operating_point=point.name, threshold=point.threshold, positive_label=point.positive_label
    )
