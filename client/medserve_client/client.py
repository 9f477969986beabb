"""The client for ordinary programs."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self, TypeVar

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
from medserve_client.throttle import Throttles
from medserve_client.tls_mismatch import check_connection_error
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from medserve_proto.v1.model_catalog_pb2 import GetManifestRequest, ListModelsRequest
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")
_Outcome = TypeVar("_Outcome")


class Client:
    """Calls a medserve server. Threads may share one.

    Every method raises an InferenceError, or the subclass that fits the status. A call that ends as UNAVAILABLE, or as
    CANCELLED, which a server says that is stopping, is tried again up to three times within its timeout, and nothing
    else is. While a model is too busy, `classify` and `predict_risk` send it no more than it answers, and raise an
    OverloadedError for the rest at once.

    A server on this machine or its link is never called through a proxy; for others gRPC reads `grpc_proxy`,
    `https_proxy` and `http_proxy` from the environment, and `no_grpc_proxy` and `no_proxy`.
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
        """Connects when the first call is made.

        Args:
            target: host:port, or `dns:///name:port` to spread calls over every address of a name.
            timeout: seconds that one call may take, retries included; a stream has no limit.
            max_message_bytes: largest message sent or received.
            tls: encrypts; by default nothing is encrypted.
            token: tells the server who calls. It is never sent unencrypted to another machine.

        Raises:
            OSError: a file of `tls` can't be read.
            ValueError: one half of certificate and key is missing, or the token can't be sent.
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
        self._risk = PatientRiskStub(self._channel)
        self._health = self._channel.unary_unary(
            health.METHOD, health.HealthCheckRequest.SerializeToString, health.HealthCheckResponse.FromString
        )

    def close(self) -> None:
        """Ends the connection and every call on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns the error of a call inside it into an InferenceError."""
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
            model: its name.
            version: by default the highest that is ready.

        Raises:
            NotFoundError: there is no such model or version.
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
    ) -> ClassificationResponse:
        """Classifies one or many pictures.

        Args:
            images: one or a list of: a path (str or os.PathLike); the bytes of a PNG, JPEG, TIFF or DICOM file (bytes,
                bytearray, memoryview); a file opened in binary mode, which is read from its current position on; an
                image of Pillow; or pixels, as a NumPy array of uint8, [height, width] or [height, width, channels].
                Any other sequence is a list of pictures; several pictures in one array are not taken.
            model: its name.
            version: by default the highest that is ready.
            top_k: how many labels each result lists, most probable first; 0 for all.
            reasons: what to tell about the reasons of each result.
            frame: of each picture, from 0; only DICOM files have more than one.

        Raises:
            InvalidArgumentError: a picture is bad; `violations` names it, and no picture was classified.
            FailedPreconditionError: the model can't tell these reasons.
            OSError: a file can't be read.
            ResourceExhaustedError: the pictures are larger than a message may be; no file is read further than that.
            TypeError: a picture is of a kind or an array of a dtype that can't be sent, or a file is open in text mode.
            ValueError: an array has a wrong number of dimensions, an image of Pillow has a mode or an orientation that
                can't be sent, a file object is at its end, or the frame is negative.
        """
        with self._throttles.call(model), self._errors():
            request = messages.classify_request(images, model, version, top_k, reasons, frame, self._max_bytes)
            return messages.classification_response(
                self._images.Classify(request, timeout=self._timeout, metadata=self._metadata)
            )

    def predict_risk(
        self, patients: messages.Patients, model: str, version: str = "", reasons: RiskReasons | None = None
    ) -> RiskResponse:
        """Predicts the risk of one or many patients.

        Args:
            patients: one or a list of mappings from feature to value, in the units of the
                manifest; None, or leaving it out, says that a value is missing.
            model: its name.
            version: by default the highest that is ready.
            reasons: what to tell about the reasons of each risk.

        Raises:
            InvalidArgumentError: a value is bad; `violations` names each, and no risk was predicted.
            FailedPreconditionError: the model can't tell these reasons.
            TypeError: a value is neither a number nor a text nor None.
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
        """Classifies many batches on one connection.

        Yields, in the order of the batches, the response to each or the error that only this one
        met. `batches` is read in another thread, as fast as the server takes it. What it raises is
        raised here, after the answers to the batches before it.

        Args:
            batches: what `classify` takes as images, once for each request.
            model: its name.
            version: by default the highest that is ready.
            top_k: how many labels each result lists; 0 for all.
            reasons: what to tell about the reasons of each result.

        Raises:
            TypeError: `batches` is one picture.
        """
        check_batches(batches)
        requests = (
            messages.classify_request(images, model, version, top_k, reasons, max_bytes=self._max_bytes)
            for images in batches
        )
        return _stream(
            self._images.ClassifyStream, requests, self._metadata, self._errors(), messages.classification_outcome
        )

    def predict_risk_stream(
        self,
        batches: Iterable[messages.Patients],
        model: str,
        version: str = "",
        reasons: RiskReasons | None = None,
    ) -> Generator[RiskResponse | InferenceError, None, None]:
        """Predicts the risk of many batches of patients on one connection, as `classify_stream` does.

        Args:
            batches: what `predict_risk` takes as patients, once for each request.
            model: its name.
            version: by default the highest that is ready.
            reasons: what to tell about the reasons of each risk.
        """
        requests = (messages.predict_request(patients, model, version, reasons) for patients in batches)
        return _stream(self._risk.PredictStream, requests, self._metadata, self._errors(), messages.risk_outcome)

    def health(self, service: str = "") -> health.HealthStatus:
        """Asks whether the server, or one of its services, answers requests.

        Args:
            service: full name, e.g. "medserve.v1.PatientRisk"; empty for the server as a whole.

        Raises:
            NotFoundError: there is no such service.
        """
        request = health.HealthCheckRequest(value=service)
        with self._errors():
            return health.HealthStatus(self._health(request, timeout=self._timeout, metadata=self._metadata).value)


def _stream(
    method: "grpc.StreamStreamMultiCallable[_Request, _Reply]",  # generic in its stubs alone
    requests: Iterator[_Request],
    metadata: Metadata,
    errors: AbstractContextManager[None],
    read: Callable[[_Reply], _Outcome],
) -> Generator[_Outcome, None, None]:
    failures: list[Exception] = []

    def sent() -> Iterator[_Request]:
        # Runs in a thread of gRPC, which would log the user's exception and lose it.
        try:
            yield from requests
        except Exception as error:  # noqa: BLE001 - raised below, whatever it is
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
