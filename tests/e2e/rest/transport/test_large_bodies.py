"""Parsing large bodies does not delay other calls."""

import base64
import gzip
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from calls.rest_client import JSON, Reply, RestClient, tensor
from servers.server_process import running_server
from waiting import wait_until

RISK = "/v2/models/breast-cancer-risk/infer"
CLASSIFY = "/v1/models/chest-xray:classify"
LARGE = 300_000


def image_file() -> bytes:
    file = io.BytesIO()
    Image.new("L", (28, 28), 99).save(file, "PNG")
    return file.getvalue()


ROW = json.dumps({"inputs": [tensor("FP32", [1, 8], [55, 1, 22, 1, 3, 120, 80, 1], "features")]}).encode()
IMAGE = json.dumps({"images": [{"encoded": base64.b64encode(image_file()).decode()}]}).encode()
LOADS = {
    "tensors": (RISK, ROW.ljust(LARGE), {}),
    "binary behind large JSON": (RISK, ROW.ljust(LARGE), {"Inference-Header-Content-Length": str(LARGE)}),
    "typed": (CLASSIFY, IMAGE.ljust(LARGE), JSON),
    "gzip": (RISK, gzip.compress(ROW), {"Content-Encoding": "gzip"}),
    "index": ("/v2/repository/index", b"{}".ljust(LARGE), {}),
}


@pytest.fixture(scope="module")
def holding(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RestClient, Path]]:
    """Yields a client of a server that stops parsing while a file exists, and that file."""
    held = tmp_path_factory.mktemp("bodies") / "held"
    with running_server("--transport", transport, patch=("held_bodies", str(held))) as server:
        yield RestClient(server.http_url, {}), held


@pytest.mark.parametrize("load", LOADS)
def test_other_calls_are_not_delayed(holding: tuple[RestClient, Path], load: str) -> None:
    path, body, headers = LOADS[load]
    client, held = holding
    held.with_suffix(".reached").unlink(missing_ok=True)
    many = 2 * (os.cpu_count() or 1) + 2  # more than there are threads to read them
    with ThreadPoolExecutor(many) as pool:

        def send(path: str, body: bytes, headers: dict[str, str]) -> Reply:
            return client.post(path, body, **headers)

        held.touch()
        try:
            slow = [pool.submit(send, path, body, headers) for _ in range(many)]
            wait_until(held.with_suffix(".reached").exists, "a body to be parsed")
            assert send(RISK, ROW, {}).status == 200  # without a thread, since all are busy
            assert not any(call.done() for call in slow)
        finally:
            held.unlink()
        assert {call.result().status for call in slow} == {200}


def test_size_of_waiting_bodies_is_bounded(transport: str, tmp_path: Path) -> None:
    """The limit is the same as for incomplete bodies: 16 of 2 MiB, not counting the first 1 MiB of each."""
    held, fitting, more = tmp_path / "held", 32, 3
    body = ROW.ljust(2 * 1024 * 1024)
    flags = ("--transport", transport, "--max-message-mib", "2")
    with (
        running_server(*flags, patch=("held_bodies", str(held))) as server,
        ThreadPoolExecutor(fitting + more) as pool,
    ):
        client = RestClient(server.http_url, {})
        held.touch()
        try:
            calls = [pool.submit(client.post, RISK, body) for _ in range(fitting + more)]
            wait_until(
                lambda: sum(call.done() for call in calls) == more, "the requests beyond the limit to be refused"
            )
        finally:
            held.unlink()
        assert sorted(call.result().status for call in calls) == [200] * fitting + [429] * more
        assert client.post(RISK, body).status == 200
