"""An event loop that is blocked for two seconds, once, after a file appeared and a call came."""

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
