"""A server with other timeouts for request bodies."""

from medserve_server.calls import open_calls


def apply(seconds: str, rate: str) -> None:
    open_calls.BODY_SECONDS = float(seconds)
    open_calls.BODY_RATE = float(rate)  # type: ignore[assignment]  # one byte may be worth many seconds

    from medserve_server.transport import http_server  # noqa: PLC0415 - which takes over what was set

    http_server.REFUSAL_SECONDS = float(seconds)
