"""What all APIs that run models have in common: find the model, read the request, run, answer."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from numpy.typing import NDArray

from medserve_server.call_context import Context
from medserve_server.engine.model import Model
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import DEFAULT_PRIORITY, Arrays
from medserve_server.errors import InferenceFailed, InvalidInput, ServingError
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
    """A request that was read: what the model needs, and how to answer with what it gives."""

    inputs: Tensors
    rows: int
    outputs: tuple[str, ...]
    answer: Callable[[Arrays], Response]
    priority: int = DEFAULT_PRIORITY
    timeout: float | None = None
    """Seconds that it may wait for the model; None: as long as the call may last."""
    slow: bool = False
    """Whether answering takes so long that others should not have to wait for it."""

    def deadline(self, of_call: float | None) -> float | None:
        """The earlier of the call's deadline and the end of `timeout`, on the clock of `time.monotonic`."""
        if self.timeout is None:
            return of_call
        own = time.monotonic() + self.timeout
        return own if of_call is None else min(own, of_call)


def priority(request: Message) -> int:
    """Of a picture's or a patient's request: reasons mean many rows, so requests without go before those with them."""
    return DEFAULT_PRIORITY + 1 if request.HasField("reasons") else DEFAULT_PRIORITY


class ModelApi(ABC, Generic[Request, Response, StreamResponse]):
    """An API with one unary method that runs a model, and a stream of the same.

    Transports either await `unary` and iterate `stream`, or do the steps themselves: `begin`, `read`,
    `Model.submit`, `Job.answer`.
    """

    name: ClassVar[str]
    """In metrics."""
    method: ClassVar[str]
    """Path of the unary method."""
    request_type: ClassVar[type[Message]]
    id_field: ClassVar[str] = "request_id"
    """Where a request has the client's name for it."""

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
    def read(self, model: Model, request: Request) -> Job[Response]:
        """Checks a request and turns it into arrays.

        Raises:
            ServingError: the request is wrong, or the model is for something else.
        """

    @abstractmethod
    def in_stream(self, request: Request, outcome: Response | ServingError) -> StreamResponse:
        """Wraps a response or an error for the stream."""

    def is_slow(self, request: Request) -> bool:
        """Whether reading the request takes so long that others should not have to wait for it."""
        del request
        return False

    @abstractmethod
    def estimate_load(self, request: Request) -> tuple[int, int]:
        """Rows, as far as they show, and priority of a request that is slow to read, before it is read."""

    def admit(self, model: Model, request: Request, deadline: float | None) -> None:
        """Refuses a request that is slow to read while it is still unread.

        Raises:
            ServingError: the model, or the threads that would read it, have no time for it.
        """
        rows, priority = self.estimate_load(request)
        model.check(rows, priority, deadline)
        self._decoders.check(deadline)

    def begin(self, request: Request, record: CallRecord | None, grant: Grant) -> tuple[Model, RequestTimer]:
        """The model that a request names, which stays open until the timer ends.

        Args:
            request: the message.
            record: where the request and its model are noted.
            grant: what its sender may do; an error tells no more than that.

        Raises:
            InvalidInput: a name is too long.
            NotFound: there is none.
            Unavailable: the server is starting, and it is not there yet.
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
        """Raises InvalidInput where a name or an id is too long: errors and answers repeat them."""
        for field in self._names:
            if (length := len(getattr(request, field))) > self._max_name_length:
                text = f"has {length} characters, at most {self._max_name_length} are accepted"
                raise InvalidInput.of(field, text, "name_length")

    def check_rows(self, field: str, count: int) -> None:
        """Raises InvalidInput where a request holds no rows, or too many."""
        if not 1 <= count <= self._max_rows:
            text = f"has {count} entries, expected 1 to {self._max_rows}"
            raise InvalidInput.of(field, text, "rows" if count else None)

    def unary(self, request: Request, context: Context) -> Awaitable[Response]:
        """Answers a call."""
        return self._answer(request, _deadline(context), CALL_RECORD.get())

    async def stream(self, requests: AsyncIterator[Request], context: Context) -> AsyncIterator[StreamResponse]:
        """Answers many requests in their order, errors in their place."""
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
        grant = GRANT.get()
        model, timer = self.begin(request, record, grant)
        with timer:
            loop = asyncio.get_running_loop()
            if self.is_slow(request):
                self.admit(model, request, deadline)
                job = await loop.run_in_executor(self._decoders, self.read, model, request)
            else:
                job = self.read(model, request)
            if job.priority < DEFAULT_PRIORITY:
                check_priority(job.priority, grant)
            outputs = await model.infer(job.inputs, job.rows, job.outputs, job.deadline(deadline), job.priority, record)
            if job.slow:
                return await loop.run_in_executor(self._decoders, job.answer, outputs)
            return job.answer(outputs)


def checked(model: Model, output: NDArray[np.generic]) -> NDArray[np.generic]:
    """The same output.

    Raises:
        InferenceFailed: a value in it is no number: never an answer about a patient.
    """
    if not np.isfinite(output).all():
        raise InferenceFailed(f"model {model.name} gave a value that is no number")
    return output


def _deadline(context: Context) -> float | None:
    """The call's deadline on the clock of `time.monotonic`; None where the client set none."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining
