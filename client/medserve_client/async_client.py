"""The asyncio client."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
import grpc.aio

from medserve_client import health, messages
from medserve_client.channel import (
    DEFAULT_MAX_MESSAGE_BYTES,
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    Metadata,
    Tls,
    call_metadata,
    channel_credentials,
    channel_options,
)
from medserve_client.errors import InferenceError, UnavailableError, rpc_errors_translated
from medserve_client.images import Images, check_batches
from medserve_client.reasons import ImageReasons, RiskReasons
from medserve_client.results import ClassificationResponse, ModelDescription, ModelSummary, RiskResponse
from medserve_client.segmentation.messages import (
    SegmentOptions,
    segment_request,
    segmentation_outcome,
    segmentation_response,
)
from medserve_client.segmentation.results import SegmentationResponse
from medserve_client.throttle import Throttles
from medserve_client.tls_mismatch import check_connection_error
from medserve_proto.v1.image_classification_pb2 import ClassifyRequest
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from medserve_proto.v1.image_segmentation_pb2 import SegmentRequest
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from medserve_proto.v1.model_catalog_pb2 import GetManifestRequest, ListModelsRequest
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from medserve_proto.v1.patient_risk_pb2 import PredictRequest
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub

_Item = TypeVar("_Item")
_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")
_Outcome = TypeVar("_Outcome")


class AsyncClient:
    """Asynchronous counterpart of `Client`.

    It may be created before an event loop runs, e.g. at module level: it connects in the event loop that makes the
    first call, and reconnects in another loop once that one is closed. The methods take, return and raise the same as
    those of `Client`. Use `contextlib.aclosing` to leave a stream early.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        """Connects lazily, on the first call; the arguments are those of `Client`."""
        self._target, self._encrypted, self._timeout = target, tls is not None, timeout
        self._max_bytes = max_message_bytes
        self._metadata = call_metadata(token)
        self._throttles = Throttles()
        credentials, options = channel_credentials(target, tls, token), channel_options(target, max_message_bytes)
        self._open = (
            partial(grpc.aio.secure_channel, target, credentials, options)
            if credentials
            else partial(grpc.aio.insecure_channel, target, options)
        )
        self._connected: _Connection | None = None

    @property
    def _connection(self) -> "_Connection":
        """The connection of the running event loop; a grpc.aio channel is bound to the loop that created it."""
        loop = asyncio.get_running_loop()
        if self._connected is None or self._connected.loop.is_closed():
            self._connected = _Connection(loop, self._open())
        if self._connected.loop is not loop:
            raise RuntimeError("this AsyncClient is in use by another open event loop; create one client for each loop")
        return self._connected

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """Translates the grpc.RpcError of a call in the block into an InferenceError."""
        try:
            with rpc_errors_translated():
                yield
        except UnavailableError as error:
            await asyncio.to_thread(check_connection_error, self._target, error, encrypted=self._encrypted)
            raise

    async def close(self) -> None:
        """Closes the connection and cancels its calls."""
        await self._connection.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def models(self) -> list[ModelSummary]:
        """Lists every version of every model, by name and version."""
        async with self._errors():
            return messages.model_summaries(
                await self._connection.catalog.ListModels(
                    ListModelsRequest(), timeout=self._timeout, metadata=self._metadata
                )
            )

    async def describe(self, model: str, version: str = "") -> ModelDescription:
        """Fetches the manifest of a model; see `Client.describe`."""
        request = GetManifestRequest(model_name=model, model_version=version)
        async with self._errors():
            return messages.model_description(
                model,
                await self._connection.catalog.GetManifest(request, timeout=self._timeout, metadata=self._metadata),
            )

    async def classify(
        self,
        images: Images,
        model: str,
        version: str = "",
        top_k: int = 0,
        reasons: ImageReasons | None = None,
        *,
        frame: int = 0,
        preview: bool = False,
    ) -> ClassificationResponse:
        """Classifies one or more images; see `Client.classify`."""
        with self._throttles.call(model):
            async with self._errors():
                # In a thread because it may read files.
                request = await asyncio.to_thread(
                    messages.classify_request,
                    images,
                    model,
                    version,
                    top_k,
                    reasons,
                    frame,
                    self._max_bytes,
                    preview=preview,
                )
                return messages.classification_response(
                    await self._connection.images.Classify(request, timeout=self._timeout, metadata=self._metadata)
                )

    async def segment(
        self, images: Images, model: str, version: str = "", **options: Unpack[SegmentOptions]
    ) -> SegmentationResponse:
        """Segments one or more images; see `Client.segment`."""
        with self._throttles.call(model):
            async with self._errors():
                # In a thread because it may read files.
                request = await asyncio.to_thread(segment_request, images, model, version, self._max_bytes, **options)
                return segmentation_response(
                    await self._connection.segmentation.Segment(request, timeout=self._timeout, metadata=self._metadata)
                )

    async def predict_risk(
        self, patients: messages.Patients, model: str, version: str = "", reasons: RiskReasons | None = None
    ) -> RiskResponse:
        """Predicts the risk of one or more patients; see `Client.predict_risk`."""
        with self._throttles.call(model):
            async with self._errors():
                request = messages.predict_request(patients, model, version, reasons)
                return messages.risk_response(
                    await self._connection.risk.Predict(request, timeout=self._timeout, metadata=self._metadata)
                )

    def classify_stream(
        self,
        batches: Iterable[Images] | AsyncIterable[Images],
        model: str,
        version: str = "",
        top_k: int = 0,
        reasons: ImageReasons | None = None,
    ) -> AsyncGenerator[ClassificationResponse | InferenceError, None]:
        """Classifies many batches over one stream; see `Client.classify_stream`."""
        check_batches(batches)

        async def requests() -> AsyncIterator[ClassifyRequest]:
            async for images in _each(batches):
                yield await asyncio.to_thread(
                    messages.classify_request, images, model, version, top_k, reasons, max_bytes=self._max_bytes
                )

        return _stream(
            lambda: self._connection.images.ClassifyStream,
            requests(),
            self._metadata,
            self._errors(),
            messages.classification_outcome,
        )

    def segment_stream(
        self,
        batches: Iterable[Images] | AsyncIterable[Images],
        model: str,
        version: str = "",
        **options: Unpack[SegmentOptions],
    ) -> AsyncGenerator[SegmentationResponse | InferenceError, None]:
        """Segments many batches over one stream; see `Client.segment_stream`."""
        check_batches(batches)

        async def requests() -> AsyncIterator[SegmentRequest]:
            async for images in _each(batches):
                yield await asyncio.to_thread(segment_request, images, model, version, self._max_bytes, **options)

        return _stream(
            lambda: self._connection.segmentation.SegmentStream,
            requests(),
            self._metadata,
            self._errors(),
            segmentation_outcome,
        )

    def predict_risk_stream(
        self,
        batches: Iterable[messages.Patients] | AsyncIterable[messages.Patients],
        model: str,
        version: str = "",
        reasons: RiskReasons | None = None,
    ) -> AsyncGenerator[RiskResponse | InferenceError, None]:
        """Predicts the risk of many batches over one stream; see `Client.predict_risk_stream`."""

        async def requests() -> AsyncIterator[PredictRequest]:
            async for patients in _each(batches):
                yield messages.predict_request(patients, model, version, reasons)

        return _stream(
            lambda: self._connection.risk.PredictStream,
            requests(),
            self._metadata,
            self._errors(),
            messages.risk_outcome,
        )

    async def health(self, service: str = "") -> health.HealthStatus:
        """Returns the health status of the server or of one of its services; see `Client.health`."""
        request = health.HealthCheckRequest(value=service)
        async with self._errors():
            return health.HealthStatus(
                (await self._connection.health(request, timeout=self._timeout, metadata=self._metadata)).value
            )


class _Connection:
    """A channel and its stubs, bound to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: grpc.aio.Channel) -> None:
        self.loop, self.channel = loop, channel
        self.catalog = ModelCatalogStub(channel)
        self.images = ImageClassificationStub(channel)
        self.segmentation = ImageSegmentationStub(channel)
        self.risk = PatientRiskStub(channel)
        self.health = channel.unary_unary(
            health.METHOD, health.HealthCheckRequest.SerializeToString, health.HealthCheckResponse.FromString
        )


async def _each(items: Iterable[_Item] | AsyncIterable[_Item]) -> AsyncIterator[_Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _stream(
    method: "Callable[[], grpc.aio.StreamStreamMultiCallable[_Request, _Reply]]",  # generic only in its type stubs
    requests: AsyncIterator[_Request],
    metadata: Metadata,
    errors: AbstractAsyncContextManager[None],
    read: Callable[[_Reply], _Outcome],
) -> AsyncGenerator[_Outcome, None]:
    failures: list[Exception] = []

    async def sent() -> AsyncIterator[_Request]:
        # Runs in a gRPC task, which would log the user's exception and drop it.
        try:
            async for request in requests:
                yield request
        except Exception as error:  # noqa: BLE001 - re-raised below
            failures.append(error)

    replies = method()(sent(), metadata=metadata)
    try:
        async with errors:
            async for reply in replies:
                yield read(reply)
    finally:
        replies.cancel()
    if failures:
        raise failures[0]
