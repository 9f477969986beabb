"""The service medserve.v1.ImageClassification."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from medserve_images import FileInfo, Pixels
from medserve_proto.v1 import image_classification_pb2 as pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationServicer
from medserve_proto.v1.manifest_pb2 import ImageClassificationTask, OperatingPoint
from medserve_server.call_context import Context
from medserve_server.engine.model import Model
from medserve_server.engine.work import Arrays
from medserve_server.errors import ServingError
from medserve_server.explain.confidence import confidence_outputs, spread, unfamiliar
from medserve_server.explain.images import ExplainedImages
from medserve_server.explain.preview import check_preview_size, to_picture, to_png
from medserve_server.services.api import Job, RowsApi, checked, image_model, priority
from medserve_server.status import to_status


class ImageClassification(
    RowsApi[pb.ClassifyRequest, pb.ClassifyResponse, pb.ClassifyStreamResponse], ImageClassificationServicer
):
    """Classifies images and decides at the model's operating point."""

    name = "image_classification"
    method = "/medserve.v1.ImageClassification/Classify"
    request_type = pb.ClassifyRequest

    def Classify(self, request: pb.ClassifyRequest, context: Context) -> Awaitable[pb.ClassifyResponse]:
        """Answers one request."""
        return self.unary(request, context)

    async def ClassifyStream(
        self, request_iterator: AsyncIterator[pb.ClassifyRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """Answers a stream of requests in order; a failed request is answered with an error in its position."""
        async for response in self.stream(request_iterator, context):
            yield response

    def in_stream(
        self, request: pb.ClassifyRequest, outcome: pb.ClassifyResponse | ServingError
    ) -> pb.ClassifyStreamResponse:
        """Wraps a response or an error as a stream response."""
        if isinstance(outcome, ServingError):
            return pb.ClassifyStreamResponse(error=to_status(outcome), request_id=request.request_id)
        return pb.ClassifyStreamResponse(response=outcome, request_id=request.request_id)

    def is_slow(self, request: pb.ClassifyRequest) -> bool:
        """Returns whether the request has encoded images, or asks for previews or reasons, which need more rows."""
        return (
            request.preview
            or request.HasField("reasons")
            or any(image.WhichOneof("source") == "encoded" for image in request.images)
        )

    def estimate_load(self, request: pb.ClassifyRequest) -> tuple[int, int]:
        """Returns one row per image, without the rows for reasons, which are not known yet, and the priority."""
        return len(request.images), priority(request)

    def read(self, model: Model, request: pb.ClassifyRequest) -> Job[pb.ClassifyResponse]:
        """Stacks the images, and the rows for their reasons, to uint8 [rows, height, width, channels]."""
        began = monotonic()
        manifest, reader = image_model(model, "image_classification", "classify images")
        task = manifest.image_classification
        self.check_rows("images", len(request.images))
        shape = (task.input.height, task.input.width, reader.channels)
        if request.preview:
            check_preview_size(len(request.images), shape, self._max_bytes)
        images, infos = np.empty((len(request.images), *shape), np.uint8), []
        named = [(f"images[{index}]", image) for index, image in enumerate(request.images)]
        for index, pixels, info in reader.read(named):
            images[index] = pixels
            infos.append(info)
        names = ("probabilities", *confidence_outputs(task, "member_probabilities"))
        answer: Callable[[Arrays], pb.ClassifyResponse] = partial(_response, request, model, task, infos)
        if request.preview:
            answer = partial(_response_with_previews, answer, images)
        if not request.HasField("reasons"):
            return Job({"image": images}, len(images), names, answer, slow=request.preview)
        explained = ExplainedImages(request.reasons, model.name, task, images, self._max_rows, self._max_bytes)
        return Job(
            {"image": explained.rows},
            len(explained.rows),
            names + explained.outputs,
            partial(_explained_response, answer, model, explained, began),
            priority(request),
            slow=True,
        )


def _response_with_previews(
    answer: Callable[[Arrays], pb.ClassifyResponse], images: Pixels, outputs: Arrays
) -> pb.ClassifyResponse:
    response = answer(outputs)
    for image, result in zip(images, response.results, strict=True):
        result.preview_png = to_png(to_picture(image))
    return response


def _explained_response(
    answer: Callable[[Arrays], pb.ClassifyResponse],
    model: Model,
    explained: ExplainedImages,
    began: float,
    outputs: Arrays,
) -> pb.ClassifyResponse:
    response = answer(outputs)
    for name in explained.outputs:
        checked(model, outputs[name])
    explained.add_to(response.results, outputs)
    model.metrics.explained(explained.kinds, monotonic() - began)
    return response


def _response(
    request: pb.ClassifyRequest,
    model: Model,
    task: ImageClassificationTask,
    infos: list[FileInfo],
    outputs: Arrays,
) -> pb.ClassifyResponse:
    """Builds the response from the first rows of the outputs; the remaining rows are for reasons."""
    probabilities = checked(model, outputs["probabilities"])[: len(infos)]
    response = pb.ClassifyResponse(model_name=model.name, model_version=model.version, request_id=request.request_id)
    labels = list(task.labels)
    top = request.top_k or len(labels)
    point = next((point for point in task.operating_points if point.name == task.default_operating_point), None)
    for row, info in zip(probabilities.tolist(), infos, strict=True):
        result = response.results.add(decision=_decision(point, labels, row), frames=info.frames)
        for index in sorted(range(len(labels)), key=row.__getitem__, reverse=True)[:top]:
            result.labels.add(label=labels[index], probability=row[index])
        if info.sop_instance_uid:
            result.sop_instance_uid = info.sop_instance_uid
        for warning in info.warnings:
            result.warnings.add(kind=f"KIND_{warning.kind}", message=warning.message)
    _add_confidence(response, task, probabilities, outputs)
    return response


def _add_confidence(
    response: pb.ClassifyResponse, task: ImageClassificationTask, probabilities: NDArray[np.generic], outputs: Arrays
) -> None:
    """Adds the uncertainty of an ensemble and the novelty of each image, if the model has these outputs."""
    if task.members > 1:
        deviations = spread(outputs["member_probabilities"][: len(probabilities)])
        for result, row, column in zip(response.results, deviations, probabilities.argmax(axis=1), strict=True):
            result.uncertainty = row[column]
    if task.HasField("novelty"):
        for result, score in zip(response.results, outputs["novelty"][: len(probabilities)].tolist(), strict=True):
            result.novelty = score
            if message := unfamiliar(score, task.novelty, "images"):
                result.warnings.add(kind=pb.ImageWarning.KIND_UNFAMILIAR, message=message)


def _decision(point: OperatingPoint | None, labels: list[str], row: list[float]) -> pb.Decision:
    """Decides at an operating point, or for the most probable label if there is none."""
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
