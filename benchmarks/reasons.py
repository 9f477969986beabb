"""Measures the cost of a call with explanations as a multiple of the same call without, with a real server.

`python -m benchmarks.reasons` prints a table; calls with and without explanations alternate. Pictures and patients are
random, the patients within the ranges of the training data.
"""

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.processes import cpu_seconds, running
from benchmarks.servers import ROOT
from medserve_client import (
    Client,
    FailedPreconditionError,
    FeatureValue,
    HealthStatus,
    ImageReasons,
    InferenceError,
    RiskReasons,
    Task,
)
from medserve_proto.v1.manifest_pb2 import Feature

ROUNDS = 7
Call = Callable[[], object]


def measure(mark: str, calls: Mapping[str, Call], count: int) -> None:
    """Prints latency and server CPU time of each kind of call, of which the first is without explanations."""
    latency: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()  # the first call after another kind is not representative
            before = cpu_seconds(mark)
            for _ in range(count):
                start = time.perf_counter()
                call()
                latency[name].append(time.perf_counter() - start)
            cpu[name].append((cpu_seconds(mark) - before) / count)
    plain = next(iter(calls))
    for name in calls:
        milliseconds = 1e3 * statistics.median(latency[name])
        busy, least, most = (1e3 * pick(cpu[name]) for pick in (statistics.median, min, max))
        times = milliseconds / (1e3 * statistics.median(latency[plain]))
        spread = f"{busy:.2f} ({least:.2f} to {most:.2f})"
        print(f"| {name} | {milliseconds:.2f} | {times:.1f} | {spread} |")  # noqa: T201 - output of the command


def image_calls(client: Client, model: str) -> dict[str, Call]:
    """Returns the kinds of image calls that the model supports."""
    size = client.describe(model).manifest.image_classification.input
    random = np.random.default_rng(0)

    def call(reasons: ImageReasons | None) -> Call:
        return lambda: client.classify(
            random.integers(0, 256, (size.height, size.width), np.uint8), model, reasons=reasons
        )

    return _answered(
        {
            f"{model}, plain": call(None),
            f"{model}, class activation": call(ImageReasons(class_activation=True)),
            f"{model}, occlusion": call(ImageReasons(occlusion=True)),
            f"{model}, occlusion and overlay": call(ImageReasons(occlusion=True, overlay=True)),
        }
    )


def risk_calls(client: Client, model: str) -> dict[str, Call]:
    """Returns the kinds of risk calls that the model supports."""
    features = client.describe(model).manifest.patient_risk.features
    random = np.random.default_rng(0)

    def call(reasons: RiskReasons | None) -> Call:
        return lambda: client.predict_risk(
            {feature.name: _value(feature, random) for feature in features}, model, reasons=reasons
        )

    return _answered(
        {
            f"{model}, plain": call(None),
            f"{model}, Shapley values": call(RiskReasons(shapley=True)),
            f"{model}, what-if": call(RiskReasons(what_if=features[0].name)),
        }
    )


CALLS = {Task.IMAGE_CLASSIFICATION: image_calls, Task.PATIENT_RISK: risk_calls}
"""Kinds of calls by the tasks that have explanations."""


def _value(feature: Feature, random: np.random.Generator) -> FeatureValue:
    if feature.HasField("categorical"):
        return str(random.choice(list(feature.categorical.names)))
    number = random.uniform(feature.numeric.training_min, feature.numeric.training_max)
    return float(round(number) if feature.numeric.integer else number)


def _answered(calls: dict[str, Call]) -> dict[str, Call]:
    """Returns the calls that the model supports."""
    return {name: call for name, call in calls.items() if _is_answered(call)}


def _is_answered(call: Call) -> bool:
    try:
        call()
    except FailedPreconditionError:
        return False
    return True


def _serves(target: str) -> bool:
    try:
        with Client(target, timeout=1) as client:
            return client.health() is HealthStatus.SERVING
    except InferenceError:
        return False


def measure_models(transport: str, models: Path, count: int) -> None:
    """Serves a model repository and measures each of its models."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = f"127.0.0.1:{port}"
    program = str(Path(sys.executable).parent / "medserve-server")
    flags = (
        "--models",
        str(models),
        "--port",
        str(port),
        "--http-port",
        "0",
        "--metrics-port",
        "0",
        "--transport",
        transport,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        running((program, *flags), {}, Path(folder) / "log", lambda: _serves(target), 60) as started,
        Client(target) as client,
    ):
        for model in client.models():
            if model.task not in CALLS:
                continue
            named = {f"{transport}: {name}": call for name, call in CALLS[model.task](client, model.name).items()}
            measure(started.mark, named, count)


def main(models: Path, count: int) -> None:
    """Measures every model of a repository on both transports."""
    print("| call | ms, median | times plain | server CPU, ms |\n| --- | --- | --- | --- |")  # noqa: T201
    for transport in ("envoy", "grpcio"):
        measure_models(transport, models, count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--count", type=int, default=100, help="number of calls of each kind in each round")
    options = parser.parse_args()
    main(options.models.resolve(), options.count)
