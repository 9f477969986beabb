"""How the files of the page are served, on both transports, without a browser."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from calls.rest_client import RestClient
from samples import onnx_models
from servers.server_process import TRANSPORTS, running_server

PAGES = (
    *("/", "/status", "/docs", "/app.js", "/style.css", "/icon.svg"),
    *(
        "/strings/zh.js",
        "/views/models.js",
        "/views/image/view.js",
        "/views/patient/style.css",
        "/views/segmentation/view.js",
    ),
)
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    onnx_models.save(made, "plus-one", onnx_models.add(1))
    return made


@pytest.fixture(scope="module", params=TRANSPORTS)
def rest(request: pytest.FixtureRequest, folder: Path) -> Iterator[RestClient]:
    """A server on all interfaces, with the page."""
    with running_server("--transport", request.param, "--models", str(folder), "--host", "0.0.0.0", "--web") as started:
        yield RestClient(started.http_url.replace("0.0.0.0", "127.0.0.1"), {})


@pytest.mark.parametrize("path", PAGES)
def test_every_file_has_the_headers_of_a_page(rest: RestClient, path: str) -> None:
    reply = rest.get(path)
    assert reply.status == 200
    assert set(reply.headers["content-security-policy"].split("; ")) == POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-cache"
    assert "set-cookie" not in reply.headers
    types = {"": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert reply.headers["content-type"].startswith(types[Path(path).suffix])


def test_a_file_is_compressed_for_clients_that_accept_it(rest: RestClient) -> None:
    plain = rest.get("/app.js")
    for accepted in ("gzip", "br, gzip;q=0.5", "*", "*;q=0, gzip"):
        packed = rest.get("/app.js", accept_encoding=accepted)
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        assert packed.headers["etag"] != plain.headers["etag"]
    assert plain.headers["vary"] == "Accept-Encoding"
    for accepted in ("", "br", "gzip;q=0", "*;q=0", "*, gzip;q=0"):
        assert "content-encoding" not in rest.get("/app.js", accept_encoding=accepted).headers


def test_an_unchanged_file_is_not_sent_again(rest: RestClient) -> None:
    first = rest.get("/style.css")
    for tags in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = rest.get("/style.css", if_none_match=tags)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert rest.get("/style.css", if_none_match='"other"').body == first.body
    assert rest.get("/style.css", if_none_match=first.headers["etag"], accept_encoding="gzip").status == 200


def test_head_has_the_headers_of_get(rest: RestClient) -> None:
    head, full = rest.ask("HEAD", "/"), rest.get("/")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(full.body))
    assert head.headers["etag"] == full.headers["etag"]


def test_other_methods_are_refused(rest: RestClient) -> None:
    reply = rest.post("/status", {})
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/index.html", "/views/", "/views/image", "/views/other.js", "/../pages.py", "/static/app.js"]
)
def test_nothing_else_is_served(rest: RestClient, path: str) -> None:
    assert rest.get(path).status == 404


def test_the_status_counts_requests_by_duration(rest: RestClient) -> None:
    before = rest.get("/v1/status").json
    rows = {"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]}
    assert rest.infer("plus-one", rows).status == 200
    assert rest.infer("plus-one", {**rows, "name": "z"}).status == 400
    after = rest.get("/v1/status").json
    assert after["transport"] in TRANSPORTS
    assert (after["workers"], after["process"]) == (1, before["process"])
    assert after["uptimeSeconds"] > before["uptimeSeconds"]
    (was,), (now,) = before["models"], after["models"]
    assert (now["name"], now["version"], now["provider"], now["ready"]) == ("plus-one", "1", "cpu", True)
    assert now["succeeded"] - was["succeeded"] == 1
    assert now["failed"] - was["failed"] == 1
    assert now["rows"] - was["rows"] == 2
    assert sum(now["durations"]) - sum(was["durations"]) == 2
    assert len(now["durations"]) == len(after["durationBounds"]) + 1


def test_the_page_is_off_on_other_addresses_unless_asked_for(folder: Path) -> None:
    with running_server("--transport", "grpcio", "--models", str(folder), "--host", "0.0.0.0") as started:
        assert started.process.stdout is not None
        rest = RestClient(started.http_url.replace("0.0.0.0", "127.0.0.1"), {})
        for path in PAGES:
            reply = rest.get(path)
            assert reply.status == 404
            assert re.search(r"--web\b", reply.body.decode())
        assert rest.get("/v1/models").status == 200
