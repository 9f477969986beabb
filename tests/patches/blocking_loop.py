"""Blocks the event loop for two seconds, once, when a call arrives after a file was created."""

import time
from pathlib import Path
from typing import Any

from medserve_server.transport.application import Application


def apply(path: str) -> None:
    file, answer = Path(path), Application.__call__

    def blocked(self: Application, *arguments: Any) -> Any:  # noqa: ANN401 - as the original
        if file.exists():
            file.unlink()
            time.sleep(2)
        return answer(self, *arguments)

    Application.__call__ = blocked  # type: ignore[method-assign, assignment]
