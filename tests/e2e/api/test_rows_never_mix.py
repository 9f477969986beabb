"""Each request receives its own rows under concurrency, cancellations, deadlines, failing rows and streams."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Self

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calls.traffic import MODEL, Mixed, Operation, Outcomes, drive
from samples import onnx_models
from servers.model_folder import POLL, Caller, ModelFolder
from servers.server_process import ServerProcess, running_server

rows = st.one_of(st.integers(1, 4), st.integers(1, 150))  # up to three batches
seconds = st.none() | st.sampled_from([0.0, 0.001, 0.003, 0.01])
versions = st.sampled_from(["", "1", "2"])
unary = st.builds(
    Operation,
    rows=st.tuples(rows),
    bad=st.sampled_from([frozenset(), frozenset(), frozenset(), frozenset({0})]),
    version=versions,
    cancel_after=seconds,
    timeout=seconds.map(lambda value: value or None),
)
streams = st.builds(
    Operation,
    rows=st.lists(st.integers(1, 8), min_size=1, max_size=20).map(tuple),
    bad=st.frozensets(st.integers(0, 19), max_size=2),
    stream=st.just(True),
    version=versions,
    cancel_after=seconds,
)
traffic = st.lists(unary | unary | unary | streams, min_size=10, max_size=60)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaled")
    for version in (1, 2):
        onnx_models.save(folder, MODEL, onnx_models.scaled(version), version)
    return folder


@pytest.fixture(scope="module")
def target(scaled: Path, transport: str) -> Iterator[str]:
    with running_server("--models", str(scaled), "--transport", transport, "--log-level", "error") as server:
        yield server.target


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=traffic, seed=st.integers(0, 2**32 - 1))
def test_every_caller_gets_the_response_to_its_request(target: str, operations: list[Operation], seed: int) -> None:
    outcomes = asyncio.run(drive(target, operations, seed))
    assert outcomes.total() == sum(len(operation.rows) for operation in operations)


class Swapper:
    """Context manager that alternately adds and removes versions 3 and 4."""

    def __init__(self, models: ModelFolder, server: ServerProcess) -> None:
        self.swaps = 0
        self.target = server.target
        self._models = models
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._swap)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _swap(self) -> None:
        with grpc.insecure_channel(self.target) as channel:
            caller = Caller(channel)
            for version, other in cycle([(3, 4), (4, 3)]):
                if self._over.is_set():
                    return
                self._models.publish(MODEL, version, onnx_models.scaled(version))
                caller.wait_for_versions(MODEL, {"1", "2", str(version)} | ({str(other)} if self.swaps else set()))
                if self.swaps:
                    self._models.remove(MODEL, other)
                    caller.wait_for_versions(MODEL, {"1", "2", str(version)})
                self.swaps += 1


@pytest.fixture(scope="module")
def swapper(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Swapper]:
    models = ModelFolder(tmp_path_factory.mktemp("swapped") / "models")
    for version in (1, 2):
        models.publish(MODEL, version, onnx_models.scaled(version))
    flags = ("--models", str(models.folder), "--transport", transport, "--log-level", "error", *POLL)
    with running_server(*flags) as server, Swapper(models, server) as started:
        yield started


swapped_traffic = st.lists(
    (unary | unary | streams).flatmap(
        lambda operation: st.sampled_from([operation, replace(operation, version="3", may_be_gone=True)])
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=swapped_traffic, seed=st.integers(0, 2**32 - 1))
def test_responses_are_of_the_named_version_during_swaps(
    swapper: Swapper, operations: list[Operation], seed: int
) -> None:
    outcomes = asyncio.run(drive(swapper.target, operations, seed))
    assert outcomes.total() == sum(len(operation.rows) for operation in operations)


CROWD = [Operation(rows=(1 + index % 7,), bad=frozenset({0} if index % 16 == 5 else ())) for index in range(200)]


def attempt(server: ServerProcess) -> None:
    for seed in range(20):
        asyncio.run(drive(server.target, CROWD, seed))


def test_many_concurrent_callers_are_served(target: str) -> None:
    outcomes = asyncio.run(drive(target, CROWD, 0))
    assert set(outcomes) == {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL}


def test_unchanged_versions_stay_available_over_20_swaps(swapper: Swapper) -> None:
    crowd = [replace(operation, version="3", may_be_gone=True) for operation in CROWD[::4]] + CROWD
    outcomes: Outcomes = Counter()
    enough = swapper.swaps + 20
    while swapper.swaps < enough:
        outcomes += asyncio.run(drive(swapper.target, crowd, swapper.swaps))
    assert set(outcomes) == {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND}


@pytest.mark.parametrize("mutation", ["rotated", "reversed", "kept", "blamed"])
def test_broken_batcher_is_detected(scaled: Path, transport: str, mutation: str) -> None:
    flags = ("--models", str(scaled), "--transport", transport, "--log-level", "error")
    with running_server(*flags, patch=("broken", mutation)) as server, pytest.raises(ExceptionGroup) as caught:
        attempt(server)
    assert caught.group_contains(Mixed)
