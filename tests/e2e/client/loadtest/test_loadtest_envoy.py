"""The load test with a real Envoy: HTTP/2, HTTP/1.1, TLS, and draining under load."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from pyvoy import PyvoyServer

from calls.loadtest_outcomes import fine
from medserve_client import Tls
from medserve_client.cli import main
from medserve_client.loadtest import LoadPlan, LoadResult, Progress, run
from samples.certificates import Authority
from waiting import PATIENCE

DRAIN = ["--disable-hot-restart", "--drain-time-s", "1", "--drain-strategy", "immediate"]
STREAMS: dict[str, Any] = {"outcome": fine}


@asynccontextmanager
async def envoy(**settings: Any) -> AsyncIterator[PyvoyServer]:  # noqa: ANN401 - pyvoy's
    async with PyvoyServer("servers.envoy_app:app", additional_envoy_args=DRAIN, loop="asyncio", **settings) as server:
        yield server


def target(server: PyvoyServer) -> str:
    return f"127.0.0.1:{server.listener_port}"


async def load(server: PyvoyServer, path: str, least: int = 1, **options: Any) -> LoadResult:  # noqa: ANN401 - of a plan
    """Runs a load that lasts long enough for `least` responses or errors on this machine."""
    settings: dict[str, Any] = {"payloads": [b"hello"], "concurrency": 4, "warmup": 0.1} | options
    for attempt in range(9):
        plan = LoadPlan(target(server), path, timeout=PATIENCE, duration=0.4 * 2**attempt, **settings)
        result = await asyncio.to_thread(run, plan)
        if result.sent >= least:
            return result
    pytest.fail(f"fewer than {least} responses in {plan.duration:g} s")


async def test_calls_and_streams_of_any_size() -> None:
    async with envoy() as server:
        for size in (0, 5, 20_000, 2_000_000):
            payload = np.random.default_rng(size).bytes(size)
            for streams in ({}, STREAMS):
                result = await load(server, "/t.T/Echo", payloads=[payload], **streams)
                assert not result.errors
                assert result.sent > 0
                assert result.sample == payload


STATUSES = {
    "/t.T/Refuse": "RESOURCE_EXHAUSTED",
    "/http/400": "INTERNAL",
    "/http/404": "UNIMPLEMENTED",
    "/http/429": "UNAVAILABLE",
    "/http/503": "UNAVAILABLE",
    "/http/418": "UNKNOWN",
    "/http/200": "UNKNOWN",
}


async def test_errors_are_counted_by_status_and_keep_the_connection() -> None:
    async with envoy() as server:
        for path, status in STATUSES.items():
            # Envoy closes a connection that looks like an attack after some hundred calls.
            result = await load(server, path, least=20)
            assert set(result.errors) == {status}, path


async def test_http_and_its_errors() -> None:
    async with envoy() as server:
        arguments = ["--server", target(server), "loadtest", "--duration", "0.4", "--warmup", "0.1"]
        for encoding in ("json", "binary"):
            assert await asyncio.to_thread(main, [*arguments, "--http", encoding, "--model", "pair"]) == 0
        refused = await load(server, "/http/429", http_headers=[], connections=4)
    assert set(refused.errors) == {"RESOURCE_EXHAUSTED"}


async def test_tls(tmp_path: Path) -> None:
    authority = Authority("hospital")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    pair = authority.issue()
    tls = Tls(tmp_path / "ca.pem")
    async with envoy(tls_cert=pair.certificate, tls_key=pair.key, tls_enable_http3=False) as server:
        results = [
            await load(server, "/t.T/Echo", tls=tls),
            await load(server, "/t.T/Echo", tls=tls, **STREAMS),
            await load(server, "/t.T/Echo", tls=tls, http_headers=[], connections=4),
        ]
    assert not any(result.errors for result in results)
    assert all(result.sent > 4 and result.sample == b"hello" for result in results)


@pytest.mark.parametrize(
    "options",
    [{}, STREAMS, {"http_headers": [], "connections": 4}, {"concurrency": 0, "rate": 300.0}],
    ids=["calls", "stream", "http", "open loop"],
)
async def test_no_call_fails_while_draining(options: dict[str, Any]) -> None:
    async with envoy() as server:
        drained: list[int] = []
        address = server._admin_address  # noqa: SLF001 - pyvoy has no public API for it

        def on_progress(progress: Progress) -> None:
            if progress.succeeded and not drained:
                drained.append(progress.succeeded)
                drain = Request(f"http://{address}/drain_listeners?graceful&skip_exit", method="POST")
                with urlopen(drain, timeout=PATIENCE) as response:  # noqa: S310 - our own http address
                    assert response.status == 200

        settings: dict[str, Any] = {"concurrency": 4, "duration": 2.5, "warmup": 0.0, "timeout": PATIENCE} | options
        plan = LoadPlan(target(server), "/t.T/Echo", [b"hello"], **settings)
        result = await asyncio.to_thread(run, plan, on_progress)
    assert not result.errors
    assert len(result.latencies) > 2 * drained[0]
