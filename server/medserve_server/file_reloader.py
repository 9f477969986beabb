"""Reloads files when they change. If the new content is invalid, the previous content stays in use."""

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
"""Seconds between two checks of the files."""
REPEAT_AFTER = 60.0
"""Seconds after which a persistent failure is logged again."""

log = logging.getLogger(__name__)


class FileReloader(Generic[Content]):
    """The result of `read` for some files, reloaded at most `POLL_INTERVAL` after they change.

    A failed read is repeated at every check until it succeeds or the files are restored. Thread-safe: instances may be
    shared between threads.

    Args:
        read: reads and parses the files; raises OSError or ValueError if they are missing or invalid.
        paths: the files to monitor.

    Raises:
        SettingsError: the first `read` fails.
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
        self._next_check = time.monotonic() + POLL_INTERVAL
        self._failure = ""
        self._logged_at = 0.0

    def current(self) -> Content:
        """Returns the content, reloaded if a file has changed."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + POLL_INTERVAL
            self._reload_if_changed()
        return self._content

    def _reload_if_changed(self) -> None:
        try:
            state = self._state()
            if state == self._seen:
                return
            content = self._read()
            if self._state() != state:
                return  # changed while it was read; the next check reloads it
        except (OSError, ValueError) as error:
            self._log_failure(str(error))
            return
        self._content = content
        self._seen = state
        self._failure = ""
        log.info("%s changed and was reloaded", self._names)

    def _log_failure(self, failure: str) -> None:
        """Logs a failure once, and again every `REPEAT_AFTER` seconds while it persists."""
        now = time.monotonic()
        if failure == self._failure and now < self._logged_at + REPEAT_AFTER:
            return
        self._failure = failure
        self._logged_at = now
        log.error("%s cannot be reloaded; the previous content stays in use: %s", self._names, failure)

    @property
    def _names(self) -> str:
        return ", ".join(map(str, self._paths))

    def _state(self) -> State:
        return tuple(_state(path) for path in self._paths)


def _state(path: Path) -> tuple[int, int, bytes]:
    """Returns a fingerprint of a file: inode, modification time and SHA-256 digest.

    The digest is needed because two versions of a file may have the same modification time: the file system's clock is
    coarse, and a copy may keep the time of its original.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    status = path.stat()
    # The content of a pipe can be read only once.
    digest = hashlib.sha256(path.read_bytes()).digest() if stat.S_ISREG(status.st_mode) else b""
    return status.st_ino, status.st_mtime_ns, digest
