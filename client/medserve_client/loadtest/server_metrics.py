"""What the server's own metrics say about a load test: where the time went, and how much CPU it took."""

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
    """Means over the requests of one model between two looks at the metrics. NaN is not known.

    Attributes:
        requests: answered by the server.
        queue_seconds: a request waited for its model.
        compute_seconds: the run of the model took that a request was part of.
        handling_seconds: the server had the request, from its arrival to its answer.
        batch_rows: rows of a run of the model.
        cpu_seconds_per_request: of the server's process, for whatever it did.
        cpu_seconds_per_row: the same.
    """

    requests: float
    queue_seconds: float
    compute_seconds: float
    handling_seconds: float
    batch_rows: float
    cpu_seconds_per_request: float
    cpu_seconds_per_row: float


def scrape(url: str, model: str) -> dict[str, float]:
    """Reads metrics: the sum of each series over all labels, without those of other models.

    Raises:
        OSError: nothing answers there.
        ValueError: what answers are not metrics.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is not an http address")
    # Without a handler of its own, an opener reads the proxies of the environment.
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
    """What happened between two looks."""

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
