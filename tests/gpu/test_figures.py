"""Measures throughput and latency without asserting them: the results are for the reader."""

import pytest

from gpu.answers import CLASSIFIERS, Expected, input_of
from gpu.conftest import MAX_BATCH_ROWS, Serve
from gpu.figures import Figure, alone, served
from medserve_server.engine.providers import Provider

pytestmark = pytest.mark.gpu

CPU: Provider = "cpu"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_throughput_and_latency_are_measured(
    name: str, provider: Provider, serve: Serve, expected: Expected, figures: list[Figure]
) -> None:
    server = serve((name,))
    _, rows, _ = expected.batch(name)
    tensor = input_of(name)
    for size in (1, 8, MAX_BATCH_ROWS.get(provider, 64)):
        figures += [served(server, name, provider, tensor, rows[:size], in_flight) for in_flight in (1, 8)]
        figures += [alone(expected.path(name), kind, tensor, rows[:size]) for kind in dict.fromkeys([provider, CPU])]
    assert all(figure.rows_per_second > 0 for figure in figures)
