"""Fixtures: the real server, called over REST."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from calls.rest_client import RestClient
from servers.server_process import ServerProcess, running_server


@pytest.fixture(scope="session")
def rest_server(repository: Path, transport: str) -> Iterator[ServerProcess]:
    """Serves the models made for the tests."""
    with running_server("--transport", transport, "--models", str(repository)) as started:
        yield started


@pytest.fixture(scope="session")
def rest(rest_server: ServerProcess) -> RestClient:
    return RestClient(rest_server.http_url, {})


@pytest.fixture(scope="session")
def rest_channel(rest_server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(rest_server.target) as opened:
        yield opened
