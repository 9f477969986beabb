"""Scrapes the server's metrics during a load test: the parts of the latency and the CPU time."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from medserve_client.target import never_proxied

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?")
_MODEL = re.compile(r'(?:^|,)model="([^"]*)"')
_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class ServerShare:
    """Means over the requests for one model between two scrapes; NaN if unknown.

    Attributes:
        requests: number of requests answered by the server.
        queue_seconds: time that a request waited in the queue of its model.
        compute_seconds: duration of the model run that a request was part of.
        handling_seconds: time from the arrival of a request at the server to its response.
        batch_rows: rows of a model run.
        cpu_seconds_per_request: CPU time of the server process, for all of its activity.
        cpu_seconds_per_row: CPU time of the server process, for all of its activity.
    """

    requests: float
    queue_seconds: float
    compute_seconds: float
    handling_seconds: float
    batch_rows: float
    cpu_seconds_per_request: float
    cpu_seconds_per_row: float


def scrape(url: str, model: str) -> dict[str, float]:
    """Scrapes metrics: the sum of each metric over all labels, excluding the series of other models.

    Raises:
        OSError: nothing answers at the URL.
        ValueError: the URL or the response is not HTTP.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is not an HTTP URL")
    # Without an explicit handler, an opener uses the proxies of the environment.
    opener = build_opener(*([ProxyHandler({})] if never_proxied(urlsplit(url).hostname or "") else []))
    try:
        with opener.open(url, timeout=_TIMEOUT) as response:
            text = response.read().decode()
    except HTTPException as error:
        raise ValueError(f"it does not speak HTTP: {error}") from error
    sums: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        if line.startswith("#") or not (sample := _SAMPLE.fullmatch(line)):
            continue
        named = _MODEL.search(sample["labels"] or "")
        if named is None or named[1] == model:
            sums[sample["name"]] += float(sample["value"])
    return dict(sums)


def compare(before: Mapping[str, float], after: Mapping[str, float]) -> ServerShare:
    """Returns the means over the requests between two scrapes."""

    def grown(name: str) -> float:
        return after.get(name, float("nan")) - before.get(name, 0.0)

    def mean(name: str) -> float:
        return _ratio(grown(f"{name}_sum"), grown(f"{name}_count"))

    requests = grown("medserve_inference_requests_total")
    cpu = grown("process_cpu_seconds_total")
    return ServerShare(
        requests=requests,
        queue_seconds=mean("medserve_queue_duration_seconds"),
        compute_seconds=mean("medserve_compute_duration_seconds"),
        handling_seconds=mean("medserve_request_duration_seconds"),
        batch_rows=mean("medserve_batch_size"),
        cpu_seconds_per_request=_ratio(cpu, requests),
        cpu_seconds_per_row=_ratio(cpu, grown("medserve_inferences_total")),
    )


def _ratio(one: float, other: float) -> float:
    return one / other if other else float("nan")
