"""The folder of Envoy's files: private, and removed by whoever is left when the supervisor was killed."""

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
"""File that is locked for as long as the supervisor or a worker lives."""


@contextmanager
def private_folder() -> Iterator[tuple[Path, int]]:
    """Makes a folder that only this user can enter, and removes it, and those of servers that were killed.

    Yields:
        The folder, and the descriptor of its lock, which workers inherit.

    Raises:
        OSError: There is no place for it.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise OSError(
            "nothing can be written to /tmp, /var/tmp or the current folder, and Envoy's files need a place: "
            "mount one on /tmp (docker run --tmpfs /tmp), or name one in TMPDIR"
        ) from None
    remove_stale_folders()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # Locked before it has its name: a start at the same time must not take the folder for one that is left over.
        unnamed = folder / f"{LOCK}.new"
        with unnamed.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            unnamed.rename(folder / LOCK)
            yield folder, file.fileno()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_folders() -> None:
    """Removes the folders of this user whose supervisor and workers are all gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # locked, gone by now, or another user's
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            with (folder / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
