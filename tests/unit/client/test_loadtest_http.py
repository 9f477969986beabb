"""The load generator over HTTP/1.1, against uvicorn and against servers that answer what a test says."""

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from certificates import Authority
from medserve_client import Tls
from medserve_client.cli import main
from medserve_client.loadtest import LoadError, LoadPlan, LoadResult, run
from oip_app import TOKEN, app
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.process  # a load is made by processes of their own

Captured = pytest.CaptureFixture[str]
SHORT = ("--duration", "0.5", "--warmup", "0.1", "--metrics-url", "http://127.0.0.1:1/metrics")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("http")
    authority = Authority("hospital")
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "other.pem").write_bytes(Authority("another").pem)
    for name in ("server", "own"):
        authority.issue().write(folder / f"{name}.pem", folder / f"{name}.key")
    return folder


def serving(**settings: Any) -> Iterator[str]:  # noqa: ANN401 - uvicorn's
    config = uvicorn.Config(app, "127.0.0.1", 0, log_level="critical", lifespan="off", ws="none", **settings)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    yield from serving()


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[str]:
    own = {"ssl_certfile": folder / "server.pem", "ssl_keyfile": folder / "server.key"}
    yield from serving(**own, ssl_ca_certs=folder / "ca.pem", ssl_cert_reqs=2)


@pytest.mark.parametrize("encoding", ["json", "binary"])
@pytest.mark.parametrize("load", [["--concurrency", "3"], ["--rate", "60", "--connections", "4"]])
def test_the_command_measures_the_open_inference_protocol(
    plain: str, encoding: str, load: list[str], tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "run.json"
    arguments = ["--http", encoding, "--model", "pair", "--batch", "2", *load, "--json", str(path)]
    assert main(["--server", plain, "loadtest", *SHORT, *arguments]) == 0
    assert f"pair, version 1: http-{encoding}, unary, 2 per request" in capsys.readouterr().out
    whole = json.loads(path.read_text())
    assert (whole["protocol"], whole["tls"], whole["version"]) == (f"http-{encoding}", False, "1")
    (run_,) = whole["runs"]
    assert run_["errors"] == {}
    assert run_["sent"] > 0


def test_json_is_the_default_and_a_version_may_be_given(plain: str) -> None:
    model = ["--model", "pair", "--version", "1"]
    assert main(["--server", plain, "loadtest", *SHORT, *model, "--http"]) == 0
    assert main(["--server", plain, "loadtest", *SHORT, "--model", "pair", "--version", "2", "--http"]) == 4


def test_tls_with_a_client_certificate_and_a_token(secure: str, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "token").write_text(TOKEN.decode().removeprefix("Bearer "))
    own = ["--ca", str(folder / "ca.pem"), "--cert", str(folder / "own.pem"), "--key", str(folder / "own.key")]
    load = ["--server", secure, "loadtest", *SHORT, "--http", "--model", "locked"]
    assert main([*load, *own, "--token-file", str(tmp_path / "token")]) == 0
    assert main([*load, *own]) == 4
    assert "a token is needed" in capsys.readouterr().err
    assert main([*load, "--ca", str(folder / "other.pem"), *own[2:]]) == 3
    assert "TLS: " in capsys.readouterr().err


def test_a_failed_tls_connection_is_explained(secure: str, folder: Path) -> None:
    wrong = Tls(folder / "other.pem", folder / "own.pem", folder / "own.key")
    with pytest.raises(LoadError, match=r"TLS: unable to get local issuer certificate|TLS: self-signed"):
        run(LoadPlan(secure, "/", [b""], concurrency=1, http_headers=[], tls=wrong))
    with pytest.raises(LoadError, match=r"cannot connect to .*: .*No such file"):
        run(LoadPlan(secure, "/", [b""], concurrency=1, http_headers=[], tls=Tls("nowhere.pem")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--http requires --model"),
        (["--model", "pair", "--mode", "stream"], "--mode stream requires gRPC"),
        (["--model", "pair", "--images", "a.png"], "--images and --patients require gRPC"),
        (["--model", "pair", "--connections", "3"], "--connections is 3; expected as many as concurrency (16)"),
        (["--model", "text"], "text: input note has datatype BYTES"),
        (["--model", "sizes"], "input image has shape [-1, -1, -1, 3]; expected"),
        (["--model", "large"], "large: a request would have 1099511627776 bytes; the maximum is"),
        (["--model", "damaged"], "damaged: the server's metadata of the model has no inputs"),
    ],
)
def test_options_that_http_does_not_support_are_rejected(
    plain: str, arguments: list[str], message: str, capsys: Captured
) -> None:
    assert main(["--server", plain, "loadtest", *SHORT, "--http", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_rejected_request_is_reported_before_the_load_starts(plain: str, capsys: Captured) -> None:
    assert main(["--server", plain, "loadtest", "--http", "--model", "liver"]) == 4
    assert "no model liver; there is pair" in capsys.readouterr().err
    assert main(["--server", "127.0.0.1:1", "loadtest", "--http", "--model", "pair"]) == 3


@asynccontextmanager
async def scripted(answer: Callable[[int], bytes | None]) -> AsyncIterator[str]:
    """Answers the requests with what `answer` makes of their number; None closes the connection instead."""
    numbers = itertools.count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                if (content := answer(next(numbers))) is None:
                    break
                writer.write(content)
                if b"close" in content:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def load(target: str, **options: Any) -> LoadResult:  # noqa: ANN401 - of a plan
    settings = {"concurrency": 2, "connections": 2, "duration": 0.3, "warmup": 0.0, "timeout": PATIENCE} | options
    plan = LoadPlan(target, "/", [b"x" * 10], http_headers=[("Content-Type", "text/plain")], **settings)
    return await asyncio.to_thread(run, plan)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ALLOWED = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "spaces and case": b"HTTP/1.1 200 OK\r\ncontent-LENGTH:\t3 \r\n\r\nabc",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc",
    "chunks": CHUNKED + b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n",
    "chunks and trailers": CHUNKED + b"003 \r\nabc\r\n00\r\nDigest: x\r\nMore: y\r\n\r\n",
    "until the end": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc",
    "a length and an end": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("content", ALLOWED.values(), ids=ALLOWED)
async def test_valid_http_responses_are_accepted(content: bytes) -> None:
    async with scripted(lambda _: content) as target:
        result = await load(target)
    assert not result.errors
    assert result.sample == b"abc"
    assert result.sent > 2


async def test_a_response_may_arrive_in_pieces() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"xxxxxxxxxx"):
                for piece in CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n":
                    writer.write(bytes([piece]))
                    await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        result = await load(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert not result.errors
    assert result.sample == b"abc"


FORBIDDEN = {
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no number": b"HTTP/1.1 2xx OK\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
    "a length beyond the limit": b"HTTP/1.1 200 OK\r\nContent-Length: 67108865\r\n\r\n",
    "more than it said": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd",
    "a head without an end": b"HTTP/1.1 200 OK\r\nX: " + bytes(70_000),
    "a chunk of no size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "a chunk of a wrong size": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond the limit": CHUNKED + b"4000001\r\nabc",
    "a chunk size of too many digits": CHUNKED + b"0000000003\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "a line without an end": CHUNKED + b"3" * 2000,
}


@pytest.mark.parametrize("content", FORBIDDEN.values(), ids=FORBIDDEN)
async def test_an_invalid_http_response_fails_only_its_own_request(content: bytes) -> None:
    async with scripted(lambda _: content) as target:
        result = await load(target)
    assert set(result.errors) == {"INTERNAL"}
    assert not result.latencies.size


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (413, "RESOURCE_EXHAUSTED"),
        (418, "UNKNOWN"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
async def test_http_errors_are_counted_by_grpc_status(status: int, name: str) -> None:
    content = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\n{}" % status
    async with scripted(lambda number: ALLOWED["length"] if number % 2 else content) as target:
        result = await load(target)
    assert set(result.errors) == {name}
    assert abs(result.errors[name] - len(result.latencies)) <= 2


async def test_a_lost_connection_fails_its_request_and_is_reopened() -> None:
    async with scripted(lambda number: None if number % 5 == 4 else ALLOWED["length"]) as target:
        result = await load(target)
    assert set(result.errors) == {"UNAVAILABLE"}
    assert len(result.latencies) > result.errors.total()


async def test_a_request_beyond_the_timeout_fails() -> None:
    async with scripted(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab") as target:
        result = await load(target, timeout=0.1)
    assert set(result.errors) == {"DEADLINE_EXCEEDED"}


async def test_an_open_loop_respects_the_limit_on_connections() -> None:
    """Of 5 that wait for an answer that comes with the next request alone, no more than 3 are open."""
    now, most = 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"xxxxxxxxxx"):
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.05)
                now -= 1
                writer.write(ALLOWED["length"])
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        result = await load(target, concurrency=0, rate=200, connections=3, duration=1)
    assert most == 3
    assert not result.errors
    assert result.completed < result.sent  # 60 a second are answered


async def test_a_large_request_arrives_completely(plain: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                writer.write(ALLOWED["length"] if body == payload else b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    assert plain
    payload = bytes(range(256)) * 8000
    async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 22) as server:
        target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        plan = LoadPlan(target, "/", [payload], concurrency=1, duration=0.3, warmup=0, http_headers=[])
        result = await asyncio.to_thread(run, plan)
    assert not result.errors
    assert result.sent > 0


@pytest.mark.parametrize(
    "wrong",
    [{"concurrency": 3}, {"outcome": len}, {"concurrency": 0, "rate": 1.0, "connections": 1000}],
)
async def test_an_invalid_plan_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        await load("127.0.0.1:1", **wrong)


async def test_an_unreachable_server_is_an_error() -> None:
    with pytest.raises(LoadError, match=r"cannot connect to 127.0.0.1:1: the connection was refused"):
        await load("127.0.0.1:1")
