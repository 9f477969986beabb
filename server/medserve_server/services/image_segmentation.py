"""The service medserve.v1.ImageSegmentation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from medserve_images import Pixels
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationServicer
from medserve_proto.v1.manifest_pb2 import ImageSegmentationTask
from medserve_server.call_context import Context
from medserve_server.engine.manifest.segmentation import map_outputs
from medserve_server.engine.model import Model
from medserve_server.engine.work import DEFAULT_PRIORITY, Arrays
from medserve_server.errors import InvalidInput, ServingError
from medserve_server.inputs.images import RequestImages
from medserve_server.services.api import ModelApi, checked, image_model
from medserve_server.services.server_context import ServerContext
from medserve_server.services.streaming import answer_in_order
from medserve_server.status import to_status
from medserve_server.telemetry.call_record import CallRecord

if TYPE_CHECKING:  # requires scikit-image, which is optional
    from medserve_server.segment.image import SegmentedImage

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

LARGE_PIXELS = 2**20
"""Requests with more pixels are computed one after the other, since their maps need much memory."""
SMALL_REQUESTS = 8
"""Maximum number of smaller requests that are computed at the same time."""
BATCHES_AHEAD = 2
"""Batches of an image that are queued or computed at the same time: the next while the outputs of one are joined."""


class ImageSegmentation(
    ModelApi[pb.SegmentRequest, pb.SegmentResponse, pb.SegmentStreamResponse], ImageSegmentationServicer
):
    """Segments images, and finds and measures their objects."""

    name = "image_segmentation"
    method = "/medserve.v1.ImageSegmentation/Segment"
    request_type = pb.SegmentRequest

    def __init__(self, server: ServerContext) -> None:
        super().__init__(server)
        self._segmenters = server.segmenters
        self._small = asyncio.Semaphore(SMALL_REQUESTS)
        self._large = asyncio.Semaphore(1)

    def Segment(self, request: pb.SegmentRequest, context: Context) -> Awaitable[pb.SegmentResponse]:
        """Answers one request."""
        return self.unary(request, context)

    async def SegmentStream(
        self, request_iterator: AsyncIterator[pb.SegmentRequest], context: Context
    ) -> AsyncIterator[pb.SegmentStreamResponse]:
        """Answers a stream of requests in order; a failed request is answered with an error in its position."""
        async for response in self.stream(request_iterator, context):
            yield response

    def in_stream(
        self, request: pb.SegmentRequest, outcome: pb.SegmentResponse | ServingError
    ) -> pb.SegmentStreamResponse:
        """Wraps a response or an error as a stream response."""
        if isinstance(outcome, ServingError):
            return pb.SegmentStreamResponse(error=to_status(outcome), request_id=request.request_id)
        return pb.SegmentStreamResponse(response=outcome, request_id=request.request_id)

    async def compute(
        self, model: Model, request: pb.SegmentRequest, deadline: float | None, record: CallRecord | None
    ) -> pb.SegmentResponse:
        """Segments the images one after the other, while few other requests do the same."""
        manifest, reader = image_model(model, "image_segmentation", "segment images")
        task = manifest.image_segmentation
        self.check_rows("images", len(request.images))
        _check_options(request, model, task)
        model.check(1, DEFAULT_PRIORITY, deadline)
        self._decoders.check(deadline)
        async with self._small:
            images = await self._read(request, task, reader)
            if sum(image.pixels.shape[0] * image.pixels.shape[1] for image in images) <= LARGE_PIXELS:
                return await self._segment(model, request, task, images, deadline, record)
            del images  # decoded again later: large images must not wait in memory
        async with self._large:
            images = await self._read(request, task, reader)
            return await self._segment(model, request, task, images, deadline, record)

    async def _read(
        self, request: pb.SegmentRequest, task: ImageSegmentationTask, reader: RequestImages
    ) -> "list[SegmentedImage]":
        from medserve_server.segment.request import read_request  # noqa: PLC0415 - scikit-image is optional

        return await asyncio.get_running_loop().run_in_executor(self._decoders, read_request, request, task, reader)

    async def _segment(
        self,
        model: Model,
        request: pb.SegmentRequest,
        task: ImageSegmentationTask,
        images: "list[SegmentedImage]",
        deadline: float | None,
        record: CallRecord | None,
    ) -> pb.SegmentResponse:
        from medserve_server.segment.result import add_result  # noqa: PLC0415 - scikit-image is optional

        inputs = sum(len(image.plan) for image in images)
        priority = DEFAULT_PRIORITY + (inputs > model.max_batch_rows)
        model.check(inputs, priority, deadline)
        response = pb.SegmentResponse(model_name=model.name, model_version=model.version, request_id=request.request_id)
        size = 0
        for image in images:
            await self._run(model, task, image, deadline, priority, record)
            size += await self._in_thread(add_result, response.results.add(), request, task, image)
            self._check_size(size)
        objects = sum(label.count for result in response.results for label in result.labels)
        model.metrics.segmented(inputs, objects)
        return response

    async def _run(
        self,
        model: Model,
        task: ImageSegmentationTask,
        image: "SegmentedImage",
        deadline: float | None,
        priority: int,
        record: CallRecord | None,
    ) -> None:
        """Computes the maps of an image, a batch of inputs at a time."""
        names = (*map_outputs(task), "novelty") if task.HasField("novelty") else map_outputs(task)

        async def batches() -> AsyncIterator[Pixels]:
            for start in range(0, len(image.plan), model.max_batch_rows):
                yield await self._in_thread(image.inputs, start, model.max_batch_rows)

        async def infer(batch: Pixels) -> Arrays:
            return await model.infer({"image": batch}, len(batch), names, deadline, priority, record)

        never = asyncio.Event()
        async with aclosing(answer_in_order(batches(), infer, never, BATCHES_AHEAD)) as answers:
            async for outputs in answers:
                await self._in_thread(_add, model, image, outputs)

    async def _in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._segmenters, function, *arguments)

    def _check_size(self, size: int) -> None:
        """Raises InvalidInput if results of this many bytes are larger than a message may be."""
        if size > self._max_bytes:
            text = (
                f"have results of {size / 2**20:.3g} MiB, at most {self._max_bytes / 2**20:g} are allowed per request"
            )
            raise InvalidInput.of("images", f"{text}; send fewer images, or ask for less of each", "message_size")


def _add(model: Model, image: "SegmentedImage", outputs: Arrays) -> None:
    """Adds outputs to an image if all their values are finite."""
    for values in outputs.values():
        checked(model, values)
    image.add(outputs)


def _check_options(request: pb.SegmentRequest, model: Model, task: ImageSegmentationTask) -> None:
    """Raises InvalidInput if an option is unknown, or needs an output that the model lacks."""
    if request.masks not in pb.MaskFormat.values():
        raise InvalidInput.of("masks", f"is {request.masks}, expected one of {', '.join(pb.MaskFormat.keys())}")
    if request.uncertainty_maps and task.members <= 1:
        text = f"is set, but model {model.name} is not an ensemble, and has no uncertainty"
        raise InvalidInput.of("uncertainty_maps", text)
