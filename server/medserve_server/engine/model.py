"""A loaded, validated and warmed-up version of a model."""

import asyncio
import logging
import math
import re
import threading
import time

from medserve_proto.v1.manifest_pb2 import Manifest
from medserve_server.config import Settings
from medserve_server.engine.batcher import Batcher
from medserve_server.engine.datatypes import DATATYPES
from medserve_server.engine.manifest.reader import read_manifest
from medserve_server.engine.model_file import ModelFile
from medserve_server.engine.model_input import largest_tile, reader_of, rows_per_run
from medserve_server.engine.parity import deviation
from medserve_server.engine.parts import split
from medserve_server.engine.providers import SHAPE_SPECIALIZING_PROVIDERS, candidates
from medserve_server.engine.session import Session, Tensors
from medserve_server.engine.work import Arrays, Deliver, Outcome, Work
from medserve_server.errors import ModelLoadError, ServingError, printable
from medserve_server.supervise import Pool, call_in_loop
from medserve_server.telemetry.call_record import CallRecord
from medserve_server.telemetry.metrics import Metrics, ModelMetrics

log = logging.getLogger(__name__)

# Names that exporters give to a batch axis. If the first axis has any other name, requests to a model without a
# manifest are not batched: the axis may be a sequence, and rows of different requests would interact.
BATCH_SYMBOL = re.compile(r"n|.*batch.*", re.IGNORECASE)
RETIRE_POLL_INTERVAL = 0.02


class Model:
    """A served model: its session, request queue, manifest and input reader."""

    def __init__(self, name: str, version: str, file: ModelFile, settings: Settings, metrics: Metrics) -> None:
        """Loads a model file and warms the model up on zeros.

        Raises:
            ModelLoadError: the model cannot be served; the message gives the reason.
            ThreadStartError: the model's threads cannot be started.
        """
        started = time.monotonic()
        self.name = name
        self.version = version
        self.sha256 = file.sha256
        self.session, self.manifest = _open_session(name, version, file, settings, metrics)
        self.reader = reader_of(self.manifest, settings)
        self.output_names = tuple(spec.name for spec in self.session.outputs)
        self._tile = largest_tile(self.manifest)
        self.max_batch_rows = settings.max_batch_rows if _joins_rows(self.manifest, self.session) else 0
        if self._tile is not None:
            self.max_batch_rows = min(self.max_batch_rows, rows_per_run(self._tile, self.session.provider))
        _check_row_sizes(self.session, settings, self._tile)
        self._warm_up()
        self.session.forget_file()
        self.runs = max(1, settings.cpus // self.session.threads) if self.session.provider == "cpu" else 1
        self._threads = Pool(self.runs, thread_name_prefix=f"model-{name}")
        self.metrics = ModelMetrics(metrics, name, version)
        self._batcher = Batcher(
            self.session.run,
            max_rows=self.max_batch_rows,
            max_pending=settings.max_pending_requests,
            runs=self.runs,
            max_delay=settings.max_batch_delay_ms / 1000,
            sizes=self._warm_sizes(),
            observe=self.metrics.executed,
        )
        self._same_rows = all(spec.row_bytes is not None for spec in self.session.inputs)
        self._deliver: dict[asyncio.AbstractEventLoop, Deliver] = {}
        precision = "int8" if self.manifest is not None and self.manifest.HasField("quantization") else "fp32"
        seconds = time.monotonic() - started
        self.metrics.loaded(self.session.provider, self.session.threads, precision, seconds, self._batcher)
        self.session.owner = self

    def submit(self, work: Work) -> None:
        """Queues work, split into parts if it has more rows than a batch; call `schedule_run` afterwards.

        Raises:
            ServingError: as `Batcher.check`.
        """
        if work.record is not None:
            work.record.waits(work.rows, work.since)
        if self.max_batch_rows == 0 or work.rows <= self.max_batch_rows:
            self._batcher.submit(work)
            return
        split(work, self.max_batch_rows, self.withdraw)
        self._batcher.submit(*work.parts)

    def withdraw(self, work: Work) -> None:
        """Cancels work: removes it from the queue and discards its outcome."""
        work.cancelled = True  # for all parts, including those in progress
        self._batcher.withdraw(*(work.parts or (work,)))

    def check(self, rows: int, priority: int, deadline: float | None) -> None:
        """Checks admission before the request is decoded, to avoid decoding a request that would be refused.

        Raises:
            ServingError: as `Batcher.check`.
        """
        self._batcher.check(rows, priority, deadline)

    def schedule_run(self) -> None:
        """Starts threads of the model for the queued batches, unless enough are running."""
        if count := self._batcher.reserve():
            self._start_runs(count)

    def _start_runs(self, reserved: int) -> None:
        # The pool has already started all its threads, and is shut down only after every reserved run has ended.
        for _ in range(reserved):
            self._threads.start("run", self._batcher.run_reserved)

    async def infer(
        self,
        inputs: Tensors,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float | None,
        priority: int,
        record: CallRecord | None = None,
    ) -> Arrays:
        """Runs the model on the rows of one request, batched with those of other requests if possible.

        Args:
            inputs: all inputs of the graph, already validated against it.
            rows: size of the first axis.
            outputs: names of the requested outputs.
            deadline: on the clock of `time.monotonic`.
            priority: lower numbers are run first.
            record: where the timing of the run is recorded.

        Raises:
            ServingError: the queue is full, the deadline passed, or the model failed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Arrays] = loop.create_future()
        key = outputs if self._same_rows else None
        work = Work(inputs, rows, outputs, self._deliver_to(loop), deadline, priority, future, record=record, key=key)
        try:
            self.submit(work)
            self.schedule_run()
            return await future
        finally:
            if not work.answered:
                self.withdraw(work)

    @property
    def hangs(self) -> bool:
        """Whether the model is suspended because a run hangs."""
        return self._batcher.suspended

    def overdue(self) -> None:
        """Counts a run that was asked to terminate."""
        self.metrics.overdue()

    def suspend(self, latest: float) -> None:
        """Fails runs that started before `latest`, all queued requests, and all new ones until `resume` is called."""
        if not self.hangs:
            log.error("%s/%s hangs; its calls are refused until the run ends", self.name, self.version)
        self._batcher.suspend(latest)

    def resume(self) -> None:
        """Accepts requests again."""
        log.warning("%s/%s no longer hangs and accepts calls again", self.name, self.version)
        self._batcher.resume()

    def _deliver_to(self, loop: asyncio.AbstractEventLoop) -> Deliver:
        """Returns the loop's delivery callback: one per loop, so that a batch wakes the loop only once."""
        deliver = self._deliver.get(loop)
        if deliver is None:
            deliver = self._deliver[loop] = lambda outcomes: call_in_loop(loop, _resolve, outcomes)
        return deliver

    def retire(self, hurry: threading.Event) -> None:
        """Closes the model once its last request is answered or `hurry` is set.

        Call it only after the model was removed from the registry.
        """
        while self.metrics.inflight and not hurry.wait(RETIRE_POLL_INTERVAL):
            pass
        self.close()

    def close(self) -> None:
        """Fails queued requests, and frees the model's threads and memory once its last run has ended."""
        self._batcher.close()
        self._threads.shutdown()
        self.session.close()

    def _warm_sizes(self) -> tuple[int, ...]:
        """Returns the batch sizes to warm up and pad to; empty if the provider does not specialize for shapes."""
        if self.session.provider not in SHAPE_SPECIALIZING_PROVIDERS or not self.max_batch_rows:
            return ()
        powers = (2**exponent for exponent in range(self.max_batch_rows.bit_length()))
        return tuple(sorted({*powers, self.max_batch_rows}))

    def _warm_up(self) -> None:
        """Runs the model on zeros for every batch size that will be used, a segmentation model on its largest tiles."""
        path = self.session.path
        if self._tile is None and any(-1 in spec.shape[1:] for spec in self.session.inputs):
            log.info("%s: not warmed up, since its inputs have dynamic axes", path)
            return
        try:
            for rows in self._warm_sizes() or (1,):
                self.session.warm_up(rows, self._tile)
        except Exception as error:  # ONNX Runtime's exceptions have no other common base class
            if self.manifest is not None:
                raise ModelLoadError(f"{path}: the model fails on zeros: {error}") from error
            log.warning("%s: not warmed up, since the model fails on zeros: %s", path, printable(str(error)))


def _check_row_sizes(session: Session, settings: Settings, tile: tuple[int, int, int] | None) -> None:
    """Refuses a model whose rows exceed every request limit, before the warm-up allocates them.

    Args:
        session: the model.
        settings: the limits.
        tile: height, width and channels of the largest input of a segmentation model.

    Raises:
        ModelLoadError: a row of an input or output is larger than both a message and a decoded image may be.
    """
    most = max(settings.max_message_mib * 1024 * 1024, int(settings.max_image_megapixels * 3e6))
    for spec in session.inputs + session.outputs:
        row_bytes = math.prod(size for size in spec.shape if size > 0) * DATATYPES[spec.datatype].dtype.itemsize
        if tile is not None and -1 in spec.shape[1:]:
            row_bytes *= math.prod(tile[:2])
        if row_bytes > most:
            raise ModelLoadError(
                f"{session.path}: a row of {spec.name} has {row_bytes} bytes; "
                f"--max-message-mib and --max-image-megapixels allow {most}"
            )


def _open_session(
    name: str, version: str, file: ModelFile, settings: Settings, metrics: Metrics
) -> tuple[Session, Manifest | None]:
    """Loads the file on the first provider that supports it and reproduces PyTorch's reference probabilities.

    Raises:
        ModelLoadError: no provider does; the message gives the reason for the last one tried.
    """
    refused: dict[str, ModelLoadError] = {}
    tried = candidates(settings)
    for provider in tried:
        try:
            session = Session(file, provider, settings)
            manifest = read_manifest(file.path, session.metadata, session.inputs, session.outputs)
            worst = deviation(session, manifest) if manifest is not None else None
            if worst is not None and worst > settings.max_deviation:
                raise ModelLoadError(
                    f"{file.path}: on {provider} a probability differs by {worst:.2g} from the manifest's reference; "
                    f"--max-deviation allows {settings.max_deviation:g}"
                )
        except ModelLoadError as error:
            refused[provider] = error
            if provider == tried[-1]:
                raise
            log.warning("%s is not used: %s", provider, printable(str(error)))
        else:
            metrics.provider_refused.remove_by_labels({"model": name, "version": version})  # of the model it replaces
            for other in refused:
                metrics.provider_refused.labels(name, version, other).set(1)
            return session, manifest
    raise AssertionError("there is always a candidate")


def _resolve(outcomes: list[tuple[Work, Outcome]]) -> None:
    """Resolves the futures of this event loop."""
    for work, outcome in outcomes:
        future = work.tag
        assert isinstance(future, asyncio.Future)  # noqa: S101 - set by `infer`
        if future.done():  # cancelled
            continue
        if isinstance(outcome, ServingError):
            future.set_exception(outcome)
            future.exception()  # marks it as retrieved, in case the call has just been cancelled
        else:
            future.set_result(outcome)


def _joins_rows(manifest: Manifest | None, session: Session) -> bool:
    """Whether rows of different requests may share a run."""
    if manifest is not None:
        return True  # the first axis is the batch axis, as validated with the manifest
    symbols = {spec.batch_symbol for spec in session.inputs + session.outputs}
    if not session.inputs:  # the number of rows is unknown
        return False
    return len(symbols) == 1 and all(symbol is not None and BATCH_SYMBOL.fullmatch(symbol) for symbol in symbols)
