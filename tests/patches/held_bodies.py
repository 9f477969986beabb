"""A server that parses bodies slowly: while a file exists, parsing of large JSON and decompression block."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from medserve_server.rest import call

LARGE = 100_000


def apply(file: str) -> None:
    held = Path(file)
    orjson.loads = _held(orjson.loads, held, LARGE)
    json.loads = _held(json.loads, held, LARGE)
    call.inflated = _held(call.inflated, held, 0)  # type: ignore[attr-defined]


def _held(function: Callable[..., Any], file: Path, least: int) -> Callable[..., Any]:
    def waiting(text: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the original
        while len(text) >= least and file.exists():
            file.with_suffix(".reached").touch()
            time.sleep(0.01)
        return function(text, *args, **kwargs)

    return waiting
