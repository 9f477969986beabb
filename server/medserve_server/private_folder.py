"""Private temporary folder for Envoy's files. If the supervisor is killed, its workers or the next server remove it."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "medserve-"
LOCK = "lock"
"""File that stays locked as long as the supervisor or one of its workers is alive."""


@contextmanager
def private_folder() -> Iterator[tuple[Path, int]]:
    """Creates a folder that only this user can access, and removes it on exit; also removes those of killed servers.

    Yields:
        The folder and the file descriptor of its lock, which workers inherit.

    Raises:
        OSError: no temporary directory is writable, or the folder cannot be created.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise OSError(
            "none of /tmp, /var/tmp and the current folder is writable, and Envoy needs a folder for its files: "
            "mount one on /tmp (docker run --tmpfs /tmp), or set TMPDIR"
        ) from None
    remove_stale_folders()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # Locked before it is renamed, so that a server starting at the same time does not remove the folder as stale.
        unnamed = folder / f"{LOCK}.new"
        with unnamed.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            unnamed.rename(folder / LOCK)
            yield folder, file.fileno()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_folders() -> None:
    """Removes this user's folders whose supervisor and workers have all exited."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # locked, already removed, or owned by another user
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            with (folder / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
