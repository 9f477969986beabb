"""Life cycle of a server process: listens, loads models, serves, and on SIGTERM drains without dropping a request."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from medserve_proto.health import health_pb2, health_pb2_grpc
from medserve_proto.inference import grpc_service_pb2, grpc_service_pb2_grpc
from medserve_proto.v1 import (
    image_classification_pb2,
    image_classification_pb2_grpc,
    image_segmentation_pb2,
    image_segmentation_pb2_grpc,
    model_catalog_pb2,
    model_catalog_pb2_grpc,
    patient_risk_pb2,
    patient_risk_pb2_grpc,
)
from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.calls.open_calls import OpenCalls
from medserve_server.config import Settings
from medserve_server.errors import ModelLoadError
from medserve_server.http.metrics_page import serve_metrics
from medserve_server.inputs.decoders import Decoders
from medserve_server.process.process_setup import freeze_heap
from medserve_server.process.watchdog import POLL_INTERVAL, Watchdog, exit_soon
from medserve_server.registry.control import ModelControl
from medserve_server.registry.registry import ModelRegistry
from medserve_server.rest.application import Rest
from medserve_server.rest.status import status_endpoint
from medserve_server.security.auth import Tokens
from medserve_server.security.limits import CallLimits
from medserve_server.security.tls import server_context
from medserve_server.services.health import Health
from medserve_server.services.image_classification import ImageClassification
from medserve_server.services.image_segmentation import ImageSegmentation
from medserve_server.services.inference import Inference
from medserve_server.services.model_catalog import ModelCatalog
from medserve_server.services.patient_risk import PatientRisk
from medserve_server.services.reflection import add_reflection
from medserve_server.services.server_context import ServerContext
from medserve_server.supervise import Pool, reporting, start_awaited_task, start_task, watch
from medserve_server.telemetry.call_record import Observer
from medserve_server.telemetry.logs import log_call
from medserve_server.telemetry.metrics import Metrics
from medserve_server.transport.application import Application
from medserve_server.transport.base import Transport
from medserve_server.transport.cors import with_cors
from medserve_server.transport.envoy.files import EnvoyFiles
from medserve_server.transport.envoy.metrics import EnvoyRefusals
from medserve_server.transport.envoy.server import EnvoyServer
from medserve_server.transport.grpc_adapter import GrpcAdapter
from medserve_server.transport.grpcio_server import GrpcioServer
from medserve_server.transport.http_server import HttpServer
from medserve_server.web.pages import web_pages

log = logging.getLogger(__name__)

EXECUTOR_THREADS = 4
"""Threads of the default executor, used by `asyncio.to_thread`."""

CONTRACTS = (
    image_classification_pb2,
    image_segmentation_pb2,
    patient_risk_pb2,
    model_catalog_pb2,
    grpc_service_pb2,
)
SERVICES = [service.full_name for contract in CONTRACTS for service in contract.DESCRIPTOR.services_by_name.values()]


class Server:
    """One server process, standalone or a worker of a supervisor.

    Args:
        settings: settings of the server.
        envoy: files of the Envoy process that embeds this server; None with another transport.

    Raises:
        SettingsError: a file named in the settings is missing or invalid.
    """

    def __init__(self, settings: Settings, envoy: EnvoyFiles | None = None) -> None:
        self.settings = settings
        self.models = ModelRegistry()
        self.metrics = Metrics()
        self.port = 0
        self.metrics_port = 0
        self._standalone = settings.workers == 1 and envoy is None
        self.http_port = 0
        self._accepting = False
        self._stopping = asyncio.Event()
        self._stop_requested = asyncio.Event()
        self._health = Health(SERVICES, self._stopping, settings.max_connections)
        self._decoders = Decoders(settings.cpus)
        self._control = ModelControl(settings, self.models, self.metrics)
        # One thread may find the objects of a large image meanwhile.
        self._segmenters = Pool(max(2, settings.cpus), thread_name_prefix="segment")
        context = ServerContext(
            self.models,
            settings,
            self._stopping,
            self._decoders,
            self.metrics.refused,
            self._control,
            self._segmenters,
        )
        self._classification = ImageClassification(context)
        self._segmentation = ImageSegmentation(context)
        self._risk = PatientRisk(context)
        self._inference = Inference(context)
        self._watchdog = Watchdog(settings.max_run_seconds)
        self._closers: list[Callable[[], None]] = []
        observers = self._observers()
        tokens = Tokens(settings.tokens) if settings.tokens is not None else None
        limits = CallLimits(settings.max_pending_requests, settings.max_client_calls, settings.max_client_rate)
        interceptor = CallInterceptor(self.metrics, self._stopping, limits, tokens, observers)
        self._add_services(interceptor)
        max_bytes = settings.max_message_mib * 1024 * 1024
        self._open_calls = OpenCalls(max_bytes)
        rest = Rest(
            interceptor,
            self._open_calls,
            max_bytes,
            self.why_not_ready,
            self._decoders,
            status_endpoint(self.metrics, settings, lambda: self.port),
            web_pages(settings.serves_web),
        )
        self._transport: Transport
        self._http: HttpServer | None = None
        if envoy is not None:
            grpc = GrpcAdapter(interceptor, self._open_calls, max_bytes)
            self.application = with_cors(Application(grpc, rest), settings.cors_origin)
            self.metrics.registry.register(EnvoyRefusals(envoy.admin))
            self._transport = EnvoyServer(settings, envoy, interceptor, self._open_calls, self._stopping)
        else:
            self._transport = GrpcioServer(settings, interceptor, self._stopping, self._add_services)
            if settings.serves_http_port:
                self._http = HttpServer(with_cors(rest, settings.cors_origin), settings, server_context(settings))

    async def run(self, started: Callable[["Server"], None]) -> None:
        """Serves until `stop`.

        Args:
            started: called once all models are loaded.

        Raises:
            OSError: a port is already in use.
            ModelLoadError: a model cannot be served.
        """
        loop = asyncio.get_running_loop()
        watch(loop)
        loop.set_default_executor(Pool(EXECUTOR_THREADS, thread_name_prefix="asyncio"))
        await self._health.set_serving(False)
        watching = start_task("watchdog", self._watch)
        settings = self.settings
        if self._standalone:
            self.metrics_port, stop_metrics = serve_metrics(
                self.metrics.registry,
                settings.host,
                settings.metrics_port,
                settings.metrics_token_file,
                self.why_not_ready,
            )
        if settings.workers == 1:
            await self._listen()
        watching_calls = start_task("open calls", self._open_calls.watch)
        freeze_heap()
        try:
            await self._load()
            self._accepting = True
            await self._update_health()
            if settings.workers > 1:  # not before it is ready: the other workers serve meanwhile
                await self._listen()
            started(self)
            polling = start_task("repository", self._control.poll)
            await self._stop_requested.wait()
            polling.cancel()
            await self._drain()
        finally:
            watching.cancel()
            watching_calls.cancel()
            with reporting("stop"):
                await self._transport.close()
            if self._http is not None:
                with reporting("stop"):
                    await self._http.close()
            ended = exit_soon()
            with reporting("stop"):
                await asyncio.to_thread(self._control.close)
            self._decoders.shutdown(cancel_futures=True)
            self._segmenters.shutdown(cancel_futures=True)
            for close in self._closers:
                with reporting("stop"):
                    await asyncio.to_thread(close)
            ended.set()
            if self._standalone:
                stop_metrics()

    async def _listen(self) -> None:
        if self._http is not None:  # first: once started, a grpcio server would have to be stopped if this fails
            self.http_port = await self._http.start()
        self.port = await self._transport.start()

    def why_not_ready(self) -> str:
        """Returns the reason why health is NOT_SERVING as one line; empty if it is SERVING. Thread-safe.

        If authentication is configured, the line does not name a model, since it is readable without authentication.
        """
        if self._stop_requested.is_set():
            return "stopping"
        if not self._accepting:
            return "loading models"
        settings = self.settings
        credentials = (settings.tokens, settings.tls_client_ca, settings.metrics_token_file)
        for model in self.models:
            if model.hangs:
                return f"model {model.name} hangs" if not any(credentials) else "a model hangs"
        return ""

    def stop(self) -> None:
        """Initiates the shutdown; `run` returns once the server has drained."""
        self._stop_requested.set()

    async def _load(self) -> None:
        """Loads the models; if a stop is requested meanwhile, exits the process, since loading cannot be interrupted.

        Raises:
            ModelLoadError: a model cannot be served.
        """
        loading = start_awaited_task("repository", self._control.start, expected=ModelLoadError)
        stop = start_awaited_task("stop", self._stop_requested.wait)
        await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            log.info("stopped before all models were loaded")
            logging.shutdown()
            os._exit(0)
        stop.cancel()
        await loading

    def _observers(self) -> list[Observer]:
        """Returns the observers of finished calls that the settings enable; without any, calls are not recorded."""
        observers: list[Observer] = [log_call] if self.settings.access_log else []
        if self.settings.otlp_endpoint is not None:
            from medserve_server.telemetry.tracing import Tracer  # noqa: PLC0415 - of the extra `otel`

            tracer = Tracer(self.settings.otlp_endpoint)
            observers.append(tracer.trace)
            self._closers.append(tracer.close)
        return observers

    async def _watch(self) -> None:
        """Periodically checks for overdue runs and updates the health status, until cancelled."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            with reporting("watchdog"):
                self._watchdog.check()
            with reporting("health"):
                await self._update_health()

    async def _update_health(self) -> None:
        """Sets health to SERVING if the server accepts work and no model hangs, else to NOT_SERVING."""
        await self._health.set_serving(not self.why_not_ready())

    def _add_services(self, server: Any) -> None:  # noqa: ANN401 - grpc's server, or an object with the same registration methods
        image_classification_pb2_grpc.add_ImageClassificationServicer_to_server(self._classification, server)
        image_segmentation_pb2_grpc.add_ImageSegmentationServicer_to_server(self._segmentation, server)
        patient_risk_pb2_grpc.add_PatientRiskServicer_to_server(self._risk, server)
        model_catalog_pb2_grpc.add_ModelCatalogServicer_to_server(ModelCatalog(self.models), server)
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._inference, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        add_reflection([*SERVICES, health_name], server)

    async def _drain(self) -> None:
        """Reports NOT_SERVING, stops accepting calls after the drain delay, and waits for accepted calls to finish."""
        log.info("stopping: health reports NOT_SERVING")
        self._accepting = False
        with reporting("health"):  # accepted calls have to be answered even if this fails
            await self._update_health()
        await asyncio.sleep(self.settings.drain_delay)
        drained = [self._transport.drain(self.settings.grace)]
        if self._http is not None:
            drained.append(self._http.drain(self.settings.grace))
        if all(await asyncio.gather(*drained)):
            log.info("stopped: all calls were answered")
        else:
            log.warning("stopped: --grace %g s passed with calls unanswered", self.settings.grace)
