"""What all APIs that run models have in common: find the model, read the request, run, answer."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from medserve_server.batcher import DEFAULT_PRIORITY, Arrays
from medserve_server.config import Settings
from medserve_server.errors import InferenceFailed, ServingError
from medserve_server.interceptors import Context
from medserve_server.metrics import RequestTimer
from medserve_server.model import Model
from medserve_server.repository import ModelRepository
from medserve_server.services.streaming import answer_in_order
from medserve_server.session import Tensors

Request = TypeVar("Request", bound=Any)
Response = TypeVar("Response", bound=Message)
StreamResponse = TypeVar("StreamResponse", bound=Message)


@dataclass(frozen=True, slots=True)
class Job(Generic[Response]):
    """A request that was read: what the model needs, and how to answer with what it gives."""

    inputs: Tensors
    rows: int
    outputs: tuple[str, ...]
    answer: Callable[[Arrays], Response]
    priority: int = DEFAULT_PRIORITY
    timeout: float | None = None
    """Seconds that it may wait for the model; None: as long as the call may last."""

    def deadline(self, of_call: float | None) -> float | None:
        """The earlier of the call's deadline and the end of `timeout`, on the clock of `time.monotonic`."""
        if self.timeout is None:
            return of_call
        own = time.monotonic() + self.timeout
        return own if of_call is None else min(own, of_call)


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

    def __init__(
        self, models: ModelRepository, settings: Settings, stopping: asyncio.Event, decoders: Executor
    ) -> None:
        self._models = models
        self._max_rows = settings.max_request_rows
        self._window = settings.stream_window
        self._stopping = stopping
        self._decoders = decoders

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

    def begin(self, request: Request) -> tuple[Model, RequestTimer]:
        """The model that a request names, which stays open until the timer ends.

        Raises:
            NotFound: there is none.
        """
        return self._models.begin(request.model_name, request.model_version, self.name)

    async def unary(self, request: Request, context: Context) -> Response:
        """Answers a call."""
        return await self._answer(request, _deadline(context))

    async def stream(self, requests: AsyncIterator[Request], context: Context) -> AsyncIterator[StreamResponse]:
        """Answers many requests in their order, errors in their place."""
        deadline = _deadline(context)

        async def answer(request: Request) -> StreamResponse:
            try:
                return self.in_stream(request, await self._answer(request, deadline))
            except ServingError as error:
                return self.in_stream(request, error)

        async for response in answer_in_order(requests, answer, self._stopping, self._window):
            yield response

    async def _answer(self, request: Request, deadline: float | None) -> Response:
        model, timer = self.begin(request)
        with timer:
            if self.is_slow(request):
                loop = asyncio.get_running_loop()
                job = await loop.run_in_executor(self._decoders, self.read, model, request)
            else:
                job = self.read(model, request)
            outputs = await model.infer(job.inputs, job.rows, job.outputs, job.deadline(deadline), job.priority)
            return job.answer(outputs)


def checked(model: Model, probabilities: NDArray[np.generic]) -> NDArray[np.generic]:
    """The same probabilities.

    Raises:
        InferenceFailed: one of them is no number: never an answer about a patient.
    """
    if not np.isfinite(probabilities).all():
        raise InferenceFailed(f"model {model.name} gave a probability that is no number")
    return probabilities


def _deadline(context: Context) -> float | None:
    """The call's deadline on the clock of `time.monotonic`; None where the client set none."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining
