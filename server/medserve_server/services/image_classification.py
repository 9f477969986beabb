"""medserve.v1.ImageClassification."""

from collections.abc import AsyncIterator
from functools import partial

import numpy as np

from medserve_proto.v1 import image_classification_pb2 as pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationServicer
from medserve_proto.v1.manifest_pb2 import ImageClassificationTask, OperatingPoint
from medserve_server.batcher import Arrays
from medserve_server.errors import FieldViolation, InvalidInput, Limit, ServingError, WrongModel
from medserve_server.images import ImageReader, ImageWarning, Pixels
from medserve_server.interceptors import Context, to_status
from medserve_server.model import Model
from medserve_server.services.api import Job, ModelApi, checked

Warnings = list[list[ImageWarning]]


class ImageClassification(
    ModelApi[pb.ClassifyRequest, pb.ClassifyResponse, pb.ClassifyStreamResponse], ImageClassificationServicer
):
    """Reads pictures, asks the model, and names what it found."""

    name = "image_classification"
    method = "/medserve.v1.ImageClassification/Classify"
    request_type = pb.ClassifyRequest

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """Answers one request."""
        return await self.unary(request, context)

    async def ClassifyStream(
        self, request_iterator: AsyncIterator[pb.ClassifyRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """Answers many requests in their order, errors in their place."""
        async for response in self.stream(request_iterator, context):
            yield response

    def in_stream(
        self, request: pb.ClassifyRequest, outcome: pb.ClassifyResponse | ServingError
    ) -> pb.ClassifyStreamResponse:
        """Wraps a response or an error for the stream."""
        if isinstance(outcome, ServingError):
            return pb.ClassifyStreamResponse(error=to_status(outcome), request_id=request.request_id)
        return pb.ClassifyStreamResponse(response=outcome, request_id=request.request_id)

    def is_slow(self, request: pb.ClassifyRequest) -> bool:
        """Encoded pictures have to be decoded."""
        return any(image.WhichOneof("source") == "encoded" for image in request.images)

    def read(self, model: Model, request: pb.ClassifyRequest) -> Job[pb.ClassifyResponse]:
        """Stacks the pictures to uint8 [images, height, width, channels]."""
        if model.manifest is None or not isinstance(model.reader, ImageReader):
            raise WrongModel(f"model {model.name} does not classify images; ModelCatalog lists what each one does")
        self.check_rows("images", len(request.images))
        pictures, warnings = _read_images(request, model.reader)
        answer = partial(_response, request, model, model.manifest.image_classification, warnings)
        return Job({"image": pictures}, len(pictures), ("probabilities",), answer)


def _read_images(request: pb.ClassifyRequest, reader: ImageReader) -> tuple[Pixels, Warnings]:
    pictures = np.empty((len(request.images), reader.height, reader.width, reader.channels), np.uint8)
    warnings: Warnings = []
    violations: list[FieldViolation] = []
    limit: Limit | None = None
    for index, image in enumerate(request.images):
        field = f"images[{index}]"
        found: list[ImageWarning] = []
        try:
            match image.WhichOneof("source"):
                case "encoded":
                    pictures[index], found = reader.from_encoded(image.encoded, field, image.frame)
                case "raw" if image.frame:
                    raise InvalidInput.of(
                        f"{field}.frame", f"asks for frame {image.frame}, but only DICOM files have several"
                    )
                case "raw":
                    pictures[index] = reader.from_raw(image.raw.pixels, tuple(image.raw.shape), f"{field}.raw")
                case _:
                    raise InvalidInput.of(field, "is empty; set encoded or raw")
        except InvalidInput as error:
            violations += error.violations
            limit = limit or error.limit
        warnings.append(found)
    if violations:
        raise InvalidInput(violations, limit)
    return pictures, warnings


def _response(
    request: pb.ClassifyRequest, model: Model, task: ImageClassificationTask, warnings: Warnings, outputs: Arrays
) -> pb.ClassifyResponse:
    probabilities = checked(model, outputs["probabilities"])
    response = pb.ClassifyResponse(model_name=model.name, model_version=model.version, request_id=request.request_id)
    labels = list(task.labels)
    top = request.top_k or len(labels)
    point = next((point for point in task.operating_points if point.name == task.default_operating_point), None)
    for row, found in zip(probabilities.tolist(), warnings, strict=True):
        result = response.results.add(decision=_decision(point, labels, row))
        for index in sorted(range(len(labels)), key=row.__getitem__, reverse=True)[:top]:
            result.labels.add(label=labels[index], probability=row[index])
        for warning in found:
            result.warnings.add(kind=f"KIND_{warning.kind}", message=warning.message)
    return response


def _decision(point: OperatingPoint | None, labels: list[str], row: list[float]) -> pb.Decision:
    """Decides at an operating point, or for the most probable label where there is none."""
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
