"""Files that are read again when they change. Where the new content is wrong, the old one stays."""

import hashlib
import logging
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from medserve_server.config import SettingsError

Content = TypeVar("Content")
State = tuple[tuple[int, int, bytes], ...]

POLL_INTERVAL = 0.25
"""Seconds between two looks at the files."""
REPEAT_AFTER = 60.0
"""Seconds until a failure that lasts is logged again."""

log = logging.getLogger(__name__)


class FileReloader(Generic[Content]):
    """What `read` makes of some files, as they are now or were a moment ago.

    Only content that was read successfully counts as seen: a read that fails is repeated at every look. Threads may
    share one.

    Args:
        read: reads the files, and raises OSError or ValueError where they are wrong.
        paths: the files.

    Raises:
        SettingsError: `read` fails the first time.
    """

    def __init__(self, read: Callable[[], Content], *paths: Path) -> None:
        self._read = read
        self._paths = paths
        try:
            self._seen = self._state()
            self._content = read()
        except OSError as error:
            raise SettingsError(f"{error.filename or self._names}: {error.strerror or error}") from error
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self._next_look = time.monotonic() + POLL_INTERVAL
        self._failure = ""
        self._logged_at = 0.0

    def current(self) -> Content:
        """The content, read again where a file has changed."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + POLL_INTERVAL
            self._look()
        return self._content

    def _look(self) -> None:
        try:
            state = self._state()
            if state == self._seen:
                return
            content = self._read()
            if self._state() != state:
                return  # changed while it was read; the next look takes it
        except (OSError, ValueError) as error:
            self._log_failure(str(error))
            return
        self._content = content
        self._seen = state
        self._failure = ""
        log.info("%s changed and was read again", self._names)

    def _log_failure(self, failure: str) -> None:
        """Logs a failure once, and again when it has lasted for long."""
        now = time.monotonic()
        if failure == self._failure and now < self._logged_at + REPEAT_AFTER:
            return
        self._failure = failure
        self._logged_at = now
        log.error("%s can't be used; what was read before stays in force: %s", self._names, failure)

    @property
    def _names(self) -> str:
        return ", ".join(map(str, self._paths))

    def _state(self) -> State:
        return tuple(_state(path) for path in self._paths)


def _state(path: Path) -> tuple[int, int, bytes]:
    """What tells the content of a file from any other.

    It includes a digest, since a file system's clock may give two contents the same time, and a copy may keep the time
    of its original.

    Raises:
        OSError: the file is gone, or can't be read at the moment.
    """
    status = path.stat()
    # A pipe's content can be read only once.
    digest = hashlib.sha256(path.read_bytes()).digest() if stat.S_ISREG(status.st_mode) else b""
    return status.st_ino, status.st_mtime_ns, digest
