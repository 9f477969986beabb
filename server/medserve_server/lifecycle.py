"""From start to stop: listen, load, serve, and on SIGTERM drain without dropping a request."""

import asyncio
import logging
import signal
from collections.abc import Callable

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from medserve_proto.inference import grpc_service_pb2, grpc_service_pb2_grpc
from medserve_proto.v1 import (
    image_classification_pb2,
    image_classification_pb2_grpc,
    model_catalog_pb2,
    model_catalog_pb2_grpc,
    patient_risk_pb2,
    patient_risk_pb2_grpc,
)
from medserve_server.config import Settings
from medserve_server.decoders import Decoders
from medserve_server.health import Health
from medserve_server.logs import log_call
from medserve_server.metrics import Metrics
from medserve_server.metrics_page import serve_metrics
from medserve_server.model_control import ModelControl
from medserve_server.repository import ModelRepository
from medserve_server.services.image_classification import ImageClassification
from medserve_server.services.inference import Inference
from medserve_server.services.model_catalog import ModelCatalog
from medserve_server.services.patient_risk import PatientRisk
from medserve_server.supervise import Pool, reporting, start_task, watch
from medserve_server.trail import Observer
from medserve_server.transport import Transport
from medserve_server.watchdog import LOOK_SECONDS, Watchdog, exit_soon

log = logging.getLogger(__name__)

AWAITED_THREADS = 4
"""Threads of `asyncio.to_thread`."""

CONTRACTS = (image_classification_pb2, patient_risk_pb2, model_catalog_pb2, grpc_service_pb2)
SERVICES = [service.full_name for contract in CONTRACTS for service in contract.DESCRIPTOR.services_by_name.values()]


class Server:
    """One server process: the only one, or one of the workers that share a port.

    Raises:
        SettingsError: a file that the settings name can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = ModelRepository()
        self.metrics = Metrics()
        self.port = 0
        self.metrics_port = 0
        self._takes_work = False
        self._stopping = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._health = Health(SERVICES, self._stopping, settings.max_connections)
        self._decoders = Decoders(settings.cpus)
        self._control = ModelControl(settings, self.models, self.metrics, self._expect_models)
        shared = (self.models, settings, self._stopping, self._decoders, self.metrics.refused)
        self._classification = ImageClassification(*shared)
        self._risk = PatientRisk(*shared)
        self._inference = Inference(*shared, self._control)
        apis = (self._classification, self._risk, self._inference)
        self._watchdog = Watchdog(settings.max_run_seconds)
        self._closers: list[Callable[[], None]] = []
        self._transport = Transport(
            settings, self.metrics, self._stopping, self._decoders, apis, self._add_services, self._observers()
        )

    async def run(self, started: Callable[["Server"], None]) -> None:
        """Serves until SIGTERM, SIGINT or `stop`; a second signal ends it at once.

        Args:
            started: called once all models are ready.

        Raises:
            OSError: a port is taken.
            ModelLoadError: a model can't be served.
        """
        loop = asyncio.get_running_loop()
        watch(loop)
        loop.set_default_executor(Pool(AWAITED_THREADS, thread_name_prefix="asyncio"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        await self._health.set_serving(False)
        watching = start_task("watchdog", self._watch)
        settings = self.settings
        alone = settings.workers == 1
        if alone:
            self.metrics_port, stop_metrics = serve_metrics(
                self.metrics.registry,
                settings.host,
                settings.metrics_port,
                settings.metrics_token_file,
                self.why_not_ready,
            )
            self.port = await self._transport.start()
        try:
            await self._control.start()
            self._takes_work = True
            await self._tell_health()
            if not alone:  # until now, callers were better off with the other workers
                self.port = await self._transport.start()
            started(self)
            polling = start_task("repository", self._control.poll)
            await self._stop_asked.wait()
            polling.cancel()
            await self._drain()
        finally:
            watching.cancel()
            with reporting("stop"):
                await self._transport.close()
            ended = exit_soon()
            with reporting("stop"):
                await asyncio.to_thread(self._control.close)
            with reporting("stop"):
                self._transport.join()
            self._decoders.shutdown(cancel_futures=True)
            for close in self._closers:
                with reporting("stop"):
                    await asyncio.to_thread(close)
            ended.set()
            if alone:
                stop_metrics()

    def stop(self) -> None:
        """Begins to stop, as SIGTERM does."""
        self._stop_asked.set()

    def why_not_ready(self) -> str:
        """Says in a line why health is NOT_SERVING; empty where it is SERVING. Any thread may ask.

        Where callers have to prove who they are, no model is named: anyone may read the line.
        """
        if self._stop_asked.is_set():
            return "stopping"
        if not self._takes_work:
            return "loading models"
        settings = self.settings
        locks = (settings.tokens, settings.tls_client_ca, settings.metrics_token_file)
        for model in self.models:
            if model.hangs:
                return f"model {model.name} hangs" if not any(locks) else "a model hangs"
        return ""

    def _observers(self) -> list[Observer]:
        """Who is told of finished calls, as the settings say; without any, nothing is noted."""
        observers: list[Observer] = [log_call] if self.settings.access_log else []
        if self.settings.otlp_endpoint is not None:
            from medserve_server.tracing import Tracer  # noqa: PLC0415 - of the extra `otel`

            tracer = Tracer(self.settings.otlp_endpoint)
            observers.append(tracer.trace)
            self._closers.append(tracer.close)
        return observers

    async def _watch(self) -> None:
        """Looks for runs that do not end, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with reporting("watchdog"):
                self._watchdog.look()
            with reporting("health"):
                await self._tell_health()

    async def _tell_health(self) -> None:
        """SERVING as long as work is taken and no model hangs."""
        await self._health.set_serving(not self.why_not_ready())

    def _expect_models(self, count: int) -> None:
        self._transport.expect_models(count)

    def _add_services(self, server: aio.Server) -> None:
        image_classification_pb2_grpc.add_ImageClassificationServicer_to_server(self._classification, server)
        patient_risk_pb2_grpc.add_PatientRiskServicer_to_server(self._risk, server)
        model_catalog_pb2_grpc.add_ModelCatalogServicer_to_server(ModelCatalog(self.models), server)
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._inference, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        reflection.enable_server_reflection([*SERVICES, health_name, reflection.SERVICE_NAME], server)

    def _on_signal(self) -> None:
        if self._stop_asked.is_set():
            log.warning("asked to stop a second time: calls that are being answered are dropped")
            raise SystemExit(1)
        self._stop_asked.set()

    async def _drain(self) -> None:
        """Tells everyone, stops taking work, and waits for what was taken."""
        log.info("stopping: health says NOT_SERVING")
        self._takes_work = False
        with reporting("health"):  # whatever health says, calls that were taken have to be answered
            await self._tell_health()
        await asyncio.sleep(self.settings.drain_delay)
        self._stopping.set()
        if await self._transport.drain(self.settings.grace):
            log.info("stopped: every call was answered")
        else:
            log.warning("stopped: --grace %g s passed with calls unanswered", self.settings.grace)
