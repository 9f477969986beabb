"""Starts processes that do not outlive a failed test."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:  # noqa: ANN401 - of Popen
    """Starts a process and waits for its end; kills it if the block fails, which would otherwise wait forever.

    Args:
        command: the program and its arguments.
        options: further arguments of `subprocess.Popen`.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
