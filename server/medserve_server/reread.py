"""Files that are read again when they change. Where the new content is wrong, the old one stays."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from medserve_server.config import SettingsError

Content = TypeVar("Content")

LOOK_EVERY = 0.25
"""Seconds between two looks at the files."""

log = logging.getLogger(__name__)


class Reread(Generic[Content]):
    """What `read` makes of some files, as they are now or were a moment ago.

    Threads may share one.

    Args:
        read: reads the files, and raises OSError or ValueError where they are wrong.
        paths: the files.

    Raises:
        SettingsError: `read` fails the first time.
    """

    def __init__(self, read: Callable[[], Content], *paths: Path) -> None:
        self._read = read
        self._paths = paths
        self._seen = self._state()
        try:
            self._content = read()
        except OSError as error:
            raise SettingsError(f"{error.filename or ', '.join(map(str, paths))}: {error.strerror or error}") from error
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self._next_look = time.monotonic() + LOOK_EVERY

    def current(self) -> Content:
        """The content, read again where a file has changed."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self._look()
        return self._content

    def _look(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        names = ", ".join(map(str, self._paths))
        try:
            content = self._read()
        except (OSError, ValueError) as error:
            log.error("%s changed and can't be used; what was read before stays in force: %s", names, error)  # noqa: TRY400 - the cause is a file, not our code
        else:
            if self._state() != state:
                return  # changed while it was read; the next look takes it
            self._content = content
            log.info("%s changed and was read again", names)
        self._seen = state

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stat(path) for path in self._paths)


def _stat(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file, or what a link leads to, is another; None where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
