"""The synchronous client."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

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
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from medserve_proto.v1.model_catalog_pb2 import GetManifestRequest, ListModelsRequest
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")
_Outcome = TypeVar("_Outcome")


class Client:
    """Thread-safe client for a medserve server.

    Every method raises an InferenceError, or the subclass for its status. A call that fails with UNAVAILABLE, or with
    CANCELLED, which a stopping server returns, is retried up to three times within its timeout; no other status is
    retried. While a model is overloaded, `classify`, `segment` and `predict_risk` keep no more calls in flight than it
    answers and raise an OverloadedError for the rest immediately.

    A loopback or link-local server is never called through a proxy; for other servers gRPC reads `grpc_proxy`,
    `https_proxy`, `http_proxy`, `no_grpc_proxy` and `no_proxy` from the environment.
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
        """Connects lazily, on the first call.

        Args:
            target: host:port, or `dns:///name:port` to balance calls over every address of a name.
            timeout: timeout of one call in seconds, including retries; streams have none.
            max_message_bytes: maximum size of a message sent or received.
            tls: TLS credentials; None for plaintext.
            token: bearer token that authenticates the caller. It is never sent unencrypted to another machine.

        Raises:
            OSError: a file of `tls` cannot be read.
            ValueError: the target is malformed, or the token is malformed or would be sent unencrypted.
        """
        self._target, self._encrypted, self._timeout = target, tls is not None, timeout
        self._max_bytes = max_message_bytes
        self._metadata = call_metadata(token)
        self._throttles = Throttles()
        credentials, options = channel_credentials(target, tls, token), channel_options(target, max_message_bytes)
        self._channel = (
            grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
        )
        self._catalog = ModelCatalogStub(self._channel)
        self._images = ImageClassificationStub(self._channel)
        self._segmentation = ImageSegmentationStub(self._channel)
        self._risk = PatientRiskStub(self._channel)
        self._health = self._channel.unary_unary(
            health.METHOD, health.HealthCheckRequest.SerializeToString, health.HealthCheckResponse.FromString
        )

    def close(self) -> None:
        """Closes the connection and cancels its calls."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translates the grpc.RpcError of a call in the block into an InferenceError."""
        try:
            with rpc_errors_translated():
                yield
        except UnavailableError as error:
            check_connection_error(self._target, error, encrypted=self._encrypted)
            raise

    def models(self) -> list[ModelSummary]:
        """Lists every version of every model, by name and version."""
        with self._errors():
            return messages.model_summaries(
                self._catalog.ListModels(ListModelsRequest(), timeout=self._timeout, metadata=self._metadata)
            )

    def describe(self, model: str, version: str = "") -> ModelDescription:
        """Fetches the manifest of a model.

        Args:
            model: model name.
            version: model version; by default the highest one that is ready.

        Raises:
            NotFoundError: the model or version does not exist.
            FailedPreconditionError: the model has no manifest.
        """
        request = GetManifestRequest(model_name=model, model_version=version)
        with self._errors():
            return messages.model_description(
                model, self._catalog.GetManifest(request, timeout=self._timeout, metadata=self._metadata)
            )

    def classify(
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
        """Classifies one or more images.

        Args:
            images: one or a list of: a path (str or os.PathLike); the bytes of a PNG, JPEG, TIFF or DICOM file (bytes,
                bytearray, memoryview); a file opened in binary mode, which is read from its current position; a
                Pillow image; or pixels, as a NumPy array of uint8, [height, width] or [height, width, channels].
                Any other sequence is a list of images; several images in one array are not accepted.
            model: model name.
            version: model version; by default the highest one that is ready.
            top_k: number of labels in each result, most probable first; 0 for all.
            reasons: explanations to compute for each result.
            frame: frame index of each image, from 0; only DICOM files have more than one frame.
            preview: also return each image as the model receives it.

        Raises:
            InvalidArgumentError: an image is invalid; `violations` names it, and no image was classified.
            FailedPreconditionError: the model does not support the requested explanations.
            OSError: a file cannot be read.
            ResourceExhaustedError: the images exceed the maximum message size; no file is read beyond it.
            TypeError: an image has an unsupported type or dtype, or a file is open in text mode.
            ValueError: an array has a wrong number of dimensions, a Pillow image has an unsupported mode or a pending
                orientation, a file object is at its end, or the frame is negative.
        """
        with self._throttles.call(model), self._errors():
            request = messages.classify_request(
                images, model, version, top_k, reasons, frame, self._max_bytes, preview=preview
            )
            return messages.classification_response(
                self._images.Classify(request, timeout=self._timeout, metadata=self._metadata)
            )

    def segment(
        self, images: Images, model: str, version: str = "", **options: Unpack[SegmentOptions]
    ) -> SegmentationResponse:
        """Segments one or more images: finds the pixels of each label, and counts and measures its objects.

        Args:
            images: one or a list of the sources that `classify` takes.
            model: model name.
            version: model version; by default the highest one that is ready.
            options: see `SegmentOptions`.

        Raises:
            InvalidArgumentError: an image or its pixel spacing is invalid; no image was segmented.
            OSError, ResourceExhaustedError, TypeError: as for `classify`.
            ValueError: as for `classify`, or the pixel spacing is not a pair.
        """
        with self._throttles.call(model), self._errors():
            request = segment_request(images, model, version, self._max_bytes, **options)
            return segmentation_response(
                self._segmentation.Segment(request, timeout=self._timeout, metadata=self._metadata)
            )

    def predict_risk(
        self, patients: messages.Patients, model: str, version: str = "", reasons: RiskReasons | None = None
    ) -> RiskResponse:
        """Predicts the risk of one or more patients.

        Args:
            patients: one or a list of mappings from feature to value, in the units of the
                manifest; a value that is None or absent is missing.
            model: model name.
            version: model version; by default the highest one that is ready.
            reasons: explanations to compute for each risk.

        Raises:
            InvalidArgumentError: a value is invalid; `violations` names each one, and no risk was predicted.
            FailedPreconditionError: the model does not support the requested explanations.
            TypeError: a value is not a number, a string or None.
        """
        with self._throttles.call(model), self._errors():
            request = messages.predict_request(patients, model, version, reasons)
            return messages.risk_response(self._risk.Predict(request, timeout=self._timeout, metadata=self._metadata))

    def classify_stream(
        self,
        batches: Iterable[Images],
        model: str,
        version: str = "",
        top_k: int = 0,
        reasons: ImageReasons | None = None,
    ) -> Generator[ClassificationResponse | InferenceError, None, None]:
        """Classifies many batches over one stream.

        Yields, in the order of the batches, the response to each batch or the error that affects only
        that batch. `batches` is consumed in another thread, as fast as the server accepts requests. An
        exception raised by `batches` is re-raised here, after the responses to the preceding batches.

        Args:
            batches: one `images` argument of `classify` for each request.
            model: model name.
            version: model version; by default the highest one that is ready.
            top_k: number of labels in each result; 0 for all.
            reasons: explanations to compute for each result.

        Raises:
            TypeError: `batches` is a single image.
        """
        check_batches(batches)
        requests = (
            messages.classify_request(images, model, version, top_k, reasons, max_bytes=self._max_bytes)
            for images in batches
        )
        return _stream(
            self._images.ClassifyStream, requests, self._metadata, self._errors(), messages.classification_outcome
        )

    def segment_stream(
        self, batches: Iterable[Images], model: str, version: str = "", **options: Unpack[SegmentOptions]
    ) -> Generator[SegmentationResponse | InferenceError, None, None]:
        """Segments many batches over one stream; see `classify_stream`.

        Args:
            batches: one `images` argument of `segment` for each request.
            model: model name.
            version: model version; by default the highest one that is ready.
            options: see `SegmentOptions`.

        Raises:
            TypeError: `batches` is a single image.
        """
        check_batches(batches)
        requests = (segment_request(images, model, version, self._max_bytes, **options) for images in batches)
        return _stream(self._segmentation.SegmentStream, requests, self._metadata, self._errors(), segmentation_outcome)

    def predict_risk_stream(
        self,
        batches: Iterable[messages.Patients],
        model: str,
        version: str = "",
        reasons: RiskReasons | None = None,
    ) -> Generator[RiskResponse | InferenceError, None, None]:
        """Predicts the risk of many batches of patients over one stream; see `classify_stream`.

        Args:
            batches: one `patients` argument of `predict_risk` for each request.
            model: model name.
            version: model version; by default the highest one that is ready.
            reasons: explanations to compute for each risk.
        """
        requests = (messages.predict_request(patients, model, version, reasons) for patients in batches)
        return _stream(self._risk.PredictStream, requests, self._metadata, self._errors(), messages.risk_outcome)

    def health(self, service: str = "") -> health.HealthStatus:
        """Returns the health status of the server or of one of its services.

        Args:
            service: full service name, e.g. "medserve.v1.PatientRisk"; empty for the server as a whole.

        Raises:
            NotFoundError: the service does not exist.
        """
        request = health.HealthCheckRequest(value=service)
        with self._errors():
            return health.HealthStatus(self._health(request, timeout=self._timeout, metadata=self._metadata).value)


def _stream(
    method: "grpc.StreamStreamMultiCallable[_Request, _Reply]",  # generic only in its type stubs
    requests: Iterator[_Request],
    metadata: Metadata,
    errors: AbstractContextManager[None],
    read: Callable[[_Reply], _Outcome],
) -> Generator[_Outcome, None, None]:
    failures: list[Exception] = []

    def sent() -> Iterator[_Request]:
        # Runs in a gRPC thread, which would log the user's exception and drop it.
        try:
            yield from requests
        except Exception as error:  # noqa: BLE001 - re-raised below
            failures.append(error)

    replies = method(sent(), metadata=metadata)
    try:
        with errors:
            for reply in replies:
                yield read(reply)
    finally:
        replies.cancel()
    if failures:
        raise failures[0]
