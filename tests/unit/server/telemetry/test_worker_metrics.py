"""Aggregation of the metrics of several workers."""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

from medserve_server.telemetry.worker_metrics import Link, WorkerMetrics, total
from waiting import PATIENCE, wait_until


def worker(number: int) -> Iterable[Metric]:
    """Returns the metrics of a worker that has counted `number` of everything."""
    registry = CollectorRegistry()
    Counter("medserve_inferences_total", "Rows.", ["model"], registry=registry).labels("x").inc(number)
    Counter("medserve_seen_total", "By one alone.", ["by"], registry=registry).labels(str(number)).inc()
    Histogram("medserve_batch_size", "Rows.", registry=registry, buckets=(1, 2, 4)).observe(number)
    Gauge("medserve_inflight_requests", "Now.", registry=registry).set(number)
    Gauge("medserve_model_ready", "1.", registry=registry).set(1)
    Gauge("process_start_time_seconds", "Then.", registry=registry).set(number)
    return registry.collect()


def samples(families: Iterable[Metric]) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_shares_are_summed_and_common_values_kept() -> None:
    assert samples(total([worker(1), worker(3), worker(2)])) == {
        ("medserve_inferences_total", "x"): 6,
        ("medserve_seen_total", "1"): 1,
        ("medserve_seen_total", "2"): 1,
        ("medserve_seen_total", "3"): 1,
        ("medserve_batch_size_bucket", "1.0"): 1,
        ("medserve_batch_size_bucket", "2.0"): 2,
        ("medserve_batch_size_bucket", "4.0"): 3,
        ("medserve_batch_size_bucket", "+Inf"): 3,
        ("medserve_batch_size_count", ""): 3,
        ("medserve_batch_size_sum", ""): 6,
        ("medserve_inflight_requests", ""): 6,
        ("medserve_model_ready", ""): 1,
        ("process_start_time_seconds", ""): 1,
    }


def test_a_sum_of_sums_is_the_sum() -> None:
    assert samples(total([total([worker(1), worker(2)]), worker(3)])) == samples(
        total([worker(1), worker(2), worker(3)])
    )


def test_a_series_starts_with_the_first_of_its_workers() -> None:
    parts = [list(worker(1)), list(worker(2))]
    created = [
        sample.value for part in parts for family in part for sample in family.samples if "_created" in sample.name
    ]
    (counter,) = [family for family in total(parts) if family.name == "medserve_inferences"]
    assert min(created) == next(sample.value for sample in counter.samples if sample.name.endswith("_created"))


def test_a_malformed_answer_does_not_stop_the_polling() -> None:
    ours, theirs = multiprocessing.Pipe()
    link = Link(ours)
    link.ask()
    theirs.recv()
    theirs.send_bytes(b"no pickle")
    assert link.answered.wait(PATIENCE)
    link.ask()
    assert theirs.poll(PATIENCE), "it is asked again"
    theirs.recv()
    theirs.send(([Metric("requests", "", "counter")], "model a hangs"))
    wait_until(lambda: [family.name for family in link.metrics] == ["requests"], "the next answer")
    wait_until(lambda: link.why_not_ready == "model a hangs", "its readiness")
    theirs.close()
    link.join()
    ours.close()


@pytest.fixture
def pipes() -> Iterator[list[Connection]]:
    opened: list[Connection] = []
    yield opened
    for pipe in opened:
        pipe.close()


def linked(metrics: WorkerMetrics, pipes: list[Connection]) -> tuple[Link, Connection]:
    """A worker's link, and the worker's end of its pipe."""
    ours, theirs = multiprocessing.Pipe()
    pipes += [theirs, ours]
    return metrics.add(ours), theirs


def seen(metrics: WorkerMetrics) -> float:
    return samples(metrics.collect())["medserve_inferences_total", "x"]


def test_a_hanging_worker_is_shown_with_its_last_values_and_the_others_with_current_ones(
    pipes: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = WorkerMetrics()
    (hanging, hanging_end), (_, other_end) = linked(metrics, pipes), linked(metrics, pipes)
    with ThreadPoolExecutor() as pool:
        try:
            monkeypatch.setattr("medserve_server.telemetry.worker_metrics.RESPONSE_TIMEOUT", PATIENCE)
            scraped = pool.submit(seen, metrics)
            for end, number in ((hanging_end, 1), (other_end, 10)):
                end.recv()
                end.send((list(worker(number)), ""))
            assert scraped.result(PATIENCE) == 11
            monkeypatch.setattr("medserve_server.telemetry.worker_metrics.RESPONSE_TIMEOUT", 0.01)
            scraped = pool.submit(seen, metrics)
            other_end.recv()
            other_end.send((list(worker(20)), ""))
            assert scraped.result(PATIENCE) in {11, 21}, "it does not wait for the worker that hangs"
            wait_until(lambda: seen(metrics) == 21, "the other's answer")
            hanging_end.recv()
            assert not hanging_end.poll(), "a worker that owes an answer is not asked again"
        finally:
            hanging_end.close()
    metrics.remove(hanging)
    assert seen(metrics) == 21, "what a worker counted is not forgotten when it ends"
