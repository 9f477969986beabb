"""Common base of the services that run models: look up the model, decode the request, run the model, respond."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import Manifest
from medserve_server.call_context import Context
from medserve_server.engine.model import Model
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import DEFAULT_PRIORITY, Arrays
from medserve_server.errors import InferenceFailed, InvalidInput, ServingError, WrongModel
from medserve_server.inputs.images import RequestImages
from medserve_server.security.auth import GRANT, Grant, check_priority
from medserve_server.services.server_context import ServerContext
from medserve_server.services.streaming import answer_in_order
from medserve_server.telemetry.call_record import CALL_RECORD, CallRecord
from medserve_server.telemetry.metrics import RequestTimer

Request = TypeVar("Request", bound=Any)
Response = TypeVar("Response", bound=Message)
StreamResponse = TypeVar("StreamResponse", bound=Message)


@dataclass(slots=True)
class Job(Generic[Response]):
    """A decoded request: the model's inputs, and a function that builds the response from its outputs."""

    inputs: Tensors
    rows: int
    outputs: tuple[str, ...]
    answer: Callable[[Arrays], Response]
    priority: int = DEFAULT_PRIORITY
    timeout: float | None = None
    """Maximum time in seconds that it waits for the model; None for no limit other than the call's deadline."""
    slow: bool = False
    """Whether building the response takes long enough that it must not run in the event loop."""

    def deadline(self, of_call: float | None) -> float | None:
        """Returns the earlier of the call's deadline and the end of `timeout`, on the clock of `time.monotonic`."""
        if self.timeout is None:
            return of_call
        own = time.monotonic() + self.timeout
        return own if of_call is None else min(own, of_call)


def priority(request: Message) -> int:
    """Returns the priority of an image or patient request: lower with reasons, which require many rows."""
    return DEFAULT_PRIORITY + 1 if request.HasField("reasons") else DEFAULT_PRIORITY


class ModelApi(ABC, Generic[Request, Response, StreamResponse]):
    """A service with one unary method that runs a model, and a streaming variant of it."""

    name: ClassVar[str]
    """Value of the label `api` in metrics."""
    method: ClassVar[str]
    """Path of the unary method."""
    request_type: ClassVar[type[Message]]
    id_field: ClassVar[str] = "request_id"
    """Request field with the client's request ID."""

    def __init__(self, server: ServerContext) -> None:
        settings = server.settings
        self._models = server.models
        self._max_rows = settings.max_request_rows
        self._max_name_length = settings.max_name_length
        self._names = [
            field.name
            for field in self.request_type.DESCRIPTOR.fields
            if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
        ]
        self._max_bytes = settings.max_message_mib * 1024 * 1024
        self._window = settings.stream_window
        self._stopping = server.stopping
        self._decoders = server.decoders
        self._refused = server.refused

    @abstractmethod
    async def compute(
        self, model: Model, request: Request, deadline: float | None, record: CallRecord | None
    ) -> Response:
        """Answers a request for a model.

        Args:
            model: the model, which stays open meanwhile.
            request: the request message.
            deadline: on the clock of `time.monotonic`.
            record: where the timing of the model's runs is recorded.

        Raises:
            ServingError: the request is invalid, the model has a different task, or it cannot be answered in time.
        """

    @abstractmethod
    def in_stream(self, request: Request, outcome: Response | ServingError) -> StreamResponse:
        """Wraps a response or an error as a stream response."""

    def begin(self, request: Request, record: CallRecord | None, grant: Grant) -> tuple[Model, RequestTimer]:
        """Looks up the model of a request, which stays open until the timer ends.

        Args:
            request: the request message.
            record: call record to which the request ID and the model are added.
            grant: permissions of the client; errors reveal nothing beyond them.

        Raises:
            InvalidInput: a name is too long.
            NotFound: there is no such model.
            Unavailable: the server is starting and has not loaded the model yet.
        """
        if record is not None:
            record.asked(getattr(request, self.id_field))
        self._check_names(request)
        model, timer = self._models.begin(
            request.model_name, request.model_version, self.name, lists_models=grant.lists_models
        )
        if record is not None:
            record.found(model.name, model.version, model.sha256)
        return model, timer

    def _check_names(self, request: Request) -> None:
        """Raises InvalidInput if a name or an ID is too long, since errors and responses repeat them."""
        for field in self._names:
            if (length := len(getattr(request, field))) > self._max_name_length:
                text = f"has {length} characters, at most {self._max_name_length} are accepted"
                raise InvalidInput.of(field, text, "name_length")

    def check_rows(self, field: str, count: int) -> None:
        """Raises InvalidInput if a request has no rows, or too many."""
        if not 1 <= count <= self._max_rows:
            text = f"has {count} entries, expected 1 to {self._max_rows}"
            raise InvalidInput.of(field, text, "rows" if count else None)

    def unary(self, request: Request, context: Context) -> Awaitable[Response]:
        """Answers a unary call."""
        return self._answer(request, _deadline(context), CALL_RECORD.get())

    async def stream(self, requests: AsyncIterator[Request], context: Context) -> AsyncIterator[StreamResponse]:
        """Answers a stream of requests in order; a failed request is answered with an error in its position."""
        deadline = _deadline(context)
        of_call = CALL_RECORD.get()

        async def answer(request: Request) -> StreamResponse:
            record = of_call.in_stream() if of_call is not None else None
            try:
                with record or nullcontext():
                    return self.in_stream(request, await self._answer(request, deadline, record))
            except ServingError as error:
                self._refused(error)
                return self.in_stream(request, error)

        async for response in answer_in_order(requests, answer, self._stopping, self._window):
            yield response

    async def _answer(self, request: Request, deadline: float | None, record: CallRecord | None) -> Response:
        model, timer = self.begin(request, record, GRANT.get())
        with timer:
            return await self.compute(model, request, deadline, record)


class RowsApi(ModelApi[Request, Response, StreamResponse]):
    """A service whose requests are rows of one model run."""

    @abstractmethod
    def read(self, model: Model, request: Request) -> Job[Response]:
        """Validates a request and converts it to arrays.

        Raises:
            ServingError: the request is invalid, or the model has a different task.
        """

    def is_slow(self, request: Request) -> bool:
        """Returns whether decoding the request takes long enough that it must not run in the event loop."""
        del request
        return False

    @abstractmethod
    def estimate_load(self, request: Request) -> tuple[int, int]:
        """Returns a lower bound on the rows, and the priority, of a request that is slow to decode, before decoding."""

    def admit(self, model: Model, request: Request, deadline: float | None) -> None:
        """Checks admission for a request that is slow to decode, before it is decoded.

        Raises:
            ServingError: the model, or the decoding threads, cannot process it before its deadline.
        """
        rows, priority = self.estimate_load(request)
        model.check(rows, priority, deadline)
        self._decoders.check(deadline)

    async def compute(
        self, model: Model, request: Request, deadline: float | None, record: CallRecord | None
    ) -> Response:
        """Decodes the request, runs its rows with those of other requests, and builds the response."""
        loop = asyncio.get_running_loop()
        if self.is_slow(request):
            self.admit(model, request, deadline)
            job = await loop.run_in_executor(self._decoders, self.read, model, request)
        else:
            job = self.read(model, request)
        if job.priority < DEFAULT_PRIORITY:
            check_priority(job.priority, GRANT.get())
        outputs = await model.infer(job.inputs, job.rows, job.outputs, job.deadline(deadline), job.priority, record)
        if job.slow:
            return await loop.run_in_executor(self._decoders, job.answer, outputs)
        return job.answer(outputs)


def image_model(
    model: Model, task: Literal["image_classification", "image_segmentation"], does: str
) -> tuple[Manifest, RequestImages]:
    """Returns the manifest and the image reader of a model.

    Args:
        model: the model of the request.
        task: the task that it must have.
        does: what such a model does, for the error.

    Raises:
        WrongModel: the model has a different task.
    """
    manifest = model.manifest
    if manifest is None or manifest.WhichOneof("task") != task or not isinstance(model.reader, RequestImages):
        raise WrongModel(f"model {model.name} does not {does}; ModelCatalog lists each model's task")
    return manifest, model.reader


def checked(model: Model, output: NDArray[np.generic]) -> NDArray[np.generic]:
    """Returns the output unchanged if all its values are finite.

    Raises:
        InferenceFailed: the output contains NaN or infinite values, which must never be returned as a result.
    """
    if not np.isfinite(output).all():
        raise InferenceFailed(f"model {model.name} returned a NaN or infinite value")
    return output


def _deadline(context: Context) -> float | None:
    """Returns the call's deadline on the clock of `time.monotonic`; None if the client set none."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining
