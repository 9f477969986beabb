"""GET /v1/status: what the answering process serves, and its counters since its start, for the page /status.

It has no gRPC method: it is authorized and limited as ListModels, whose scope a client also needs to see the models.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from google.protobuf.json_format import MessageToDict
from prometheus_client.registry import Collector

from medserve_proto.v1 import model_catalog_pb2 as pb
from medserve_server.config import Settings
from medserve_server.rest.answer import Answer
from medserve_server.rest.call import RestCall
from medserve_server.rest.inference import Endpoint, Names
from medserve_server.telemetry.metrics import SECONDS, Metrics

PATH = "/v1/status"
_LIST_MODELS = "/medserve.v1.ModelCatalog/ListModels"

Key = tuple[str, str]
"""Name and version of a model."""


def status_endpoint(metrics: Metrics, settings: Settings, grpc_port: Callable[[], int]) -> Endpoint:
    """Returns the endpoint of `PATH`.

    Args:
        metrics: metrics of this process.
        settings: settings of the server.
        grpc_port: returns the port of gRPC.
    """
    return partial(_status, metrics, settings, grpc_port, time.monotonic())


async def _status(
    metrics: Metrics, settings: Settings, grpc_port: Callable[[], int], started: float, call: RestCall, _: Names
) -> Answer:
    listed: pb.ListModelsResponse = await call.run(_LIST_MODELS, lambda _: pb.ListModelsRequest())
    figures = _figures(metrics)
    (build,) = (sample.labels for family in metrics.build.collect() for sample in family.samples)
    content = {
        "process": os.getpid(),
        "uptimeSeconds": time.monotonic() - started,
        "version": build["version"],
        "onnxruntime": build["onnxruntime"],
        "python": build["python"],
        "transport": settings.transport,
        "grpcPort": grpc_port(),
        "workers": settings.workers,
        "durationBounds": SECONDS,
        "models": [
            {
                **MessageToDict(model, always_print_fields_with_no_presence=True),
                **figures[model.name, model.version],
            }
            for model in listed.models
        ],
        "refused": {labels["reason"]: int(value) for labels, value in _samples(metrics.refusals, "_total") if value},
    }
    return Answer.json(content)


def _figures(metrics: Metrics) -> dict[Key, dict[str, Any]]:
    """Returns the figures of each model; counters count since the model was loaded."""
    found: dict[Key, dict[str, Any]] = defaultdict(
        lambda: {"succeeded": 0, "failed": 0, "durations": [0] * (len(SECONDS) + 1)}
    )
    for labels, value in _samples(metrics.requests, "_total"):
        found[_key(labels)]["succeeded" if labels["code"] == "OK" else "failed"] += int(value)
    for name, family, suffix in (
        ("rows", metrics.rows, "_total"),
        ("runs", metrics.executions, "_total"),
        ("pending", metrics.pending, ""),
        ("inflight", metrics.inflight, ""),
        ("ready", metrics.ready, ""),
        ("loadSeconds", metrics.load_seconds, ""),
    ):
        for labels, value in _samples(family, suffix):
            found[_key(labels)][name] = bool(value) if name == "ready" else value
    for labels, _ in _samples(metrics.session_info, ""):
        found[_key(labels)] |= {"threads": labels["threads"], "precision": labels["precision"]}
    for (name, version, _), series in metrics.request_seconds.series():
        durations = found[name, version]["durations"]
        found[name, version]["durations"] = [a + b for a, b in zip(durations, series.counts, strict=True)]
    return found


def _samples(family: Collector, suffix: str) -> Iterable[tuple[dict[str, str], float]]:
    for collected in family.collect():
        for sample in collected.samples:
            if sample.name == collected.name + suffix:
                yield sample.labels, sample.value


def _key(labels: dict[str, str]) -> Key:
    return labels["model"], labels["version"]
