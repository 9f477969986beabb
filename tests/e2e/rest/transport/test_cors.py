"""CORS: origins whose pages may call the server."""

from collections.abc import Iterator
from contextlib import contextmanager

from calls.rest_client import RestClient
from servers.server_process import running_server

VIEWER, OTHER = "https://viewer.example.org", "https://other.example.org"
PREFLIGHT = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}


@contextmanager
def serving(transport: str, *origins: str) -> Iterator[RestClient]:
    flags = [part for origin in origins for part in ("--cors-origin", origin)]
    with running_server("--transport", transport, *flags) as server:
        yield RestClient(server.http_url, {})


def allowed(client: RestClient, origin: str) -> str | None:
    return client.get("/v1/models", Origin=origin).headers.get("access-control-allow-origin")


def test_no_origin_is_allowed_by_default(rest: RestClient) -> None:
    assert allowed(rest, VIEWER) is None
    assert rest.ask("OPTIONS", "/v1/models", Origin=VIEWER, **PREFLIGHT).status == 405


def test_named_origins_are_allowed(transport: str) -> None:
    with serving(transport, VIEWER, "http://localhost:3000") as client:
        for origin in (VIEWER, "http://localhost:3000"):
            assert allowed(client, origin) == origin
        for origin in (OTHER, "null", f"{VIEWER}.evil.example", VIEWER.upper(), ""):
            assert allowed(client, origin) is None
        reply = client.get("/v1/nothing", Origin=VIEWER)
        assert (reply.status, reply.headers["access-control-allow-origin"], reply.headers["vary"]) == (
            404,
            VIEWER,
            "Origin",
        )
        assert "grpc-status-details-bin" in reply.headers["access-control-expose-headers"]
        assert client.get("/v1/models").headers["vary"] == "Origin"
        preflight = client.ask("OPTIONS", "/v1/models", Origin=VIEWER, **PREFLIGHT)
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert client.ask("OPTIONS", "/v1/models", Origin=OTHER, **PREFLIGHT).status == 405


def test_all_origins_may_be_allowed(transport: str) -> None:
    with serving(transport, "*") as client:
        assert {allowed(client, origin) for origin in (VIEWER, "null")} == {"*"}
