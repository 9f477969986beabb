"""The native transport: HTTP/2 and gRPC in Rust (pygrpc-native); unary model calls are taken from it in batches.

A thread takes all calls that have come, reads them, and runs the models they are for; meanwhile another takes the
next ones. Nothing else stands between the wire and the batch: no task, no future, no event loop. All other methods,
streams above all, go on to a grpcio server behind it.

It has no limit on the size of a message before that is in memory, none on connections, and no TLS: only for clients
that are trusted.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from medserve_server.auth import ANYONE, Metadata, Tokens
from medserve_server.config import Settings
from medserve_server.decoders import Decoders
from medserve_server.errors import InvalidInput, MessageTooLarge, ServingError, Unavailable
from medserve_server.limits import CallLimits, client_of
from medserve_server.metrics import MethodMetrics, Metrics, RequestTimer, status_of
from medserve_server.model import Model
from medserve_server.services.api import Job, ModelApi
from medserve_server.status import to_status, to_trailers
from medserve_server.supervise import report, reporting, start_thread
from medserve_server.trail import Observer, Trail, follow
from medserve_server.work import Arrays, Outcome, Work

try:
    from pygrpc_native import EVENT_CALL, NativeGrpcFront
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('--transport native needs pygrpc-native: pip install "medserve[fast]"') from error

log = logging.getLogger(__name__)

# Calls that one thread takes at once. It reads all of them before it runs a model, so that they can share a batch.
CALLS_AT_ONCE = 64
LOOK_UP_MS = 200


@dataclass(slots=True, eq=False)
class _Call:
    """A call that was taken and has no answer yet."""

    number: int
    method: MethodMetrics
    began: float
    deadline: float | None
    client: str | None = None
    timer: RequestTimer | None = None
    reading: Future[None] | None = None
    """Where another thread reads it."""
    job: Job[Any] | None = None
    work: Work | None = None
    model: Model | None = None
    """Where the work waits."""
    trail: Trail | None = None


class NativeFront:
    """Serves the unary methods of `apis` natively, and everything else through the server at `fallback`."""

    def __init__(
        self,
        apis: Sequence[ModelApi[Any, Any, Any]],
        settings: Settings,
        metrics: Metrics,
        stopping: asyncio.Event,
        decoders: Decoders,
        fallback: str,
        limits: CallLimits,
        tokens: Tokens | None,
        observers: Sequence[Observer],
    ) -> None:
        self._apis = apis
        self._methods = [MethodMetrics(metrics, "unary", api.method) for api in apis]
        self._stopping = stopping
        self._decoders = decoders
        self._limits = limits
        self._tokens = tokens
        self._observers = observers
        self._max_bytes = settings.max_message_mib * 1024 * 1024
        self._open: dict[int, _Call] = {}
        self._settings = settings
        self._fallback = fallback
        self._front: NativeGrpcFront
        self._started = False
        self._threads: set[threading.Event] = set()  # each is set when its thread ends
        self._wanted = 1
        self._lock = threading.Lock()  # guards the threads, and the end of calls
        self._closed = False

    def bind(self) -> None:
        """Takes the address; calls wait from now on."""
        self._front = NativeGrpcFront(
            self._settings.address,
            [(api.method, False) for api in self._apis],
            call_details=True,
            max_concurrent_streams=self._settings.max_connection_streams,
            reuse_port=self._settings.workers > 1,
        )
        self._front.set_fallback(self._fallback)

    def start(self) -> int:
        """Begins to serve and returns the port."""
        self._front.start()
        self._started = True
        self.set_threads(self._wanted)
        return int(self._front.bound_port)

    def set_threads(self, count: int) -> None:
        """Has that many threads take calls: more of them at once, or fewer as soon as some of them look up."""
        with self._lock:
            self._wanted = count
            if not self._started:
                return
            for _ in range(count - len(self._threads)):
                ended = threading.Event()
                start_thread("native", self._serve, ended, restart=True)
                self._threads.add(ended)

    def wait_until_answered(self, seconds: float) -> bool:
        """Waits until every call that was taken has its answer; False when that takes longer."""
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # the last answers may still be on their way into the sockets
        return not self._open

    def close(self) -> None:
        """Closes all connections."""
        self._closed = True
        if self._started:
            self._front.close()

    def join(self) -> None:
        """Waits for the threads, each of which ends with the run of a model that it is in."""
        for ended in list(self._threads):
            ended.wait()

    def _serve(self, ended: threading.Event) -> None:
        while (events := self._receive()) is not None:
            models: set[Model] = set()
            for kind, number, method, payload, _, details in events:
                with reporting("native"):  # the other calls have to be answered
                    if kind == EVENT_CALL and payload is not None and details is not None:
                        model = self._take(number, method, payload, *details)
                        if model is not None:
                            models.add(model)
                    elif call := self._open.get(number):
                        self._withdraw(call)
            for model in list(models)[1:]:
                with reporting("native"):
                    model.run_soon()
            for model in list(models)[:1]:
                model.run_here()
            if self._leave(ended):
                return
        ended.set()

    def _receive(self) -> list[Any] | None:
        """The next calls, none of them if none came for a while; None once the server is closed."""
        try:
            events: list[Any] | None = self._front.recv_batch_details(CALLS_AT_ONCE, LOOK_UP_MS)
        except Exception as error:
            if not self._closed:
                raise
            report("native", error)
            return None
        # Closing wakes only one of the threads that wait: the others look for themselves.
        return None if self._closed else events

    def _leave(self, ended: threading.Event) -> bool:
        """Whether there are more threads than are wanted, without this one too."""
        with self._lock:
            if len(self._threads) <= self._wanted:
                return False
            self._threads.remove(ended)
            return True

    def _take(
        self, number: int, method: int, payload: bytes, metadata: Metadata, peer: str, remaining: float | None
    ) -> Model | None:
        """Reads a call and queues its work; gives the model that has to run, if this thread has to run it."""
        began = time.monotonic()
        deadline = None if remaining is None else began + remaining
        call = self._open[number] = _Call(number, self._methods[method], began, deadline)
        call.method.started()
        if self._observers:
            call.trail = follow(self._observers, call.method.path, client_of(peer), metadata)
        api = self._apis[method]
        try:
            # Before anything is read: a flood has to cost less to refuse than to answer.
            grant = self._tokens.client(call.method.path, metadata) if self._tokens else ANYONE
            client = grant.client or client_of(peer)
            if call.trail is not None:
                call.trail.client = client
            self._limits.enter(client)
            if not self._keep_client(call, client):
                return None
            if self._stopping.is_set():
                raise Unavailable("the server is stopping; another one may answer")
            request = self._parse(api, payload)
            model, timer = api.begin(request, call.trail, grant)
            if not self._keep(call, timer):
                return None
            if api.admit(model, request, deadline, grant):
                call.reading = self._decoders.submit(self._read_and_run, call, api, model, request)
                return None
            self._read(call, api, model, request)
        except Exception as error:  # noqa: BLE001 - the thread has to go on
            self._fail(call, error)
            return None
        return model

    def _keep_client(self, call: _Call, client: str) -> bool:
        """Lets the call's end leave the client's count; if another thread ended the call already, leaves it here."""
        with self._lock:
            if call.number in self._open:
                call.client = client
                return True
        self._limits.leave(client)
        return False

    def _keep(self, call: _Call, timer: RequestTimer) -> bool:
        """Lets the call's end be the timer's; where another thread ended the call already, the timer ends here."""
        with self._lock:
            if call.number in self._open:
                call.timer = timer
                return True
        timer.end(grpc.StatusCode.CANCELLED)
        return False

    def _parse(self, api: ModelApi[Any, Any, Any], payload: bytes) -> Message:
        if len(payload) > self._max_bytes:
            raise MessageTooLarge(f"the message has {len(payload)} bytes, at most {self._max_bytes} are accepted")
        try:
            return api.request_type.FromString(payload)
        except DecodeError:
            raise InvalidInput.of("", f"{len(payload)} bytes that are no message of this method") from None

    def _read(self, call: _Call, api: ModelApi[Any, Any, Any], model: Model, request: Message) -> None:
        job = call.job = api.read(model, request)
        call.model = model
        call.work = Work(
            job.inputs,
            job.rows,
            job.outputs,
            self._answer,
            job.deadline(call.deadline),
            job.priority,
            call,
            trail=call.trail,
        )
        model.submit(call.work)

    def _read_and_run(self, call: _Call, api: ModelApi[Any, Any, Any], model: Model, request: Message) -> None:
        """What a slow request needs, in a thread of the decoders."""
        try:
            self._read(call, api, model, request)
        except Exception as error:  # noqa: BLE001 - the caller waits for an answer, not for this thread
            self._fail(call, error)
            return
        model.run_soon()  # not here: slow answers need the decoders too, and a run goes on as long as work comes

    def _answer(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        """Sends the answers of one run of a model."""
        for work, outcome in outcomes:
            call: Any = work.receipt
            if isinstance(outcome, ServingError):
                self._fail(call, outcome)
            elif call.job.slow:
                self._decoders.submit(self._respond, call, outcome)
            else:
                self._respond(call, outcome)

    def _respond(self, call: _Call, outputs: Arrays) -> None:
        assert call.job is not None  # noqa: S101 - it was read, since it was run
        try:
            payload = call.job.answer(outputs).SerializeToString()
        except Exception as error:  # noqa: BLE001 - the other calls of the batch have to be answered
            self._fail(call, error)
            return
        self._front.respond(call.number, payload)
        self._ended(call, grpc.StatusCode.OK)

    def _fail(self, call: _Call, error: Exception) -> None:
        code = status_of(error)
        trailing = None
        if isinstance(error, ServingError):
            call.method.refused(error)
            status = to_status(error)
            message, trailing = status.message, to_trailers(status)
        else:
            report("call", error, f"of {call.method.path}")
            code, message = grpc.StatusCode.INTERNAL, "the server failed; its log says why"
        self._front.fail(call.number, code.value[0], message, trailing)
        self._ended(call, code)

    def _withdraw(self, call: _Call) -> None:
        """The client left, or its deadline passed: the work is dropped where it still waits."""
        if call.reading is not None:
            call.reading.cancel()
        if call.work is not None and call.model is not None:
            call.model.withdraw(call.work)
        self._ended(call, grpc.StatusCode.CANCELLED)

    def _ended(self, call: _Call, code: grpc.StatusCode) -> None:
        # An answer and the client's leaving may come at once: the first of them ends the call.
        with self._lock:
            if self._open.pop(call.number, None) is None:
                return
        if call.client is not None:
            self._limits.leave(call.client)
        if call.timer is not None:
            call.timer.end(code)
        call.method.ended(code, time.monotonic() - call.began)
        if call.trail is not None:
            call.trail.end(code)
