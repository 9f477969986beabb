"""Publishes a command's output files together, once all of them are complete."""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType

from medserve_training.errors import UserError

# The server ignores folders of the model repository whose names begin with a dot.
_PREFIX = ".unfinished-"


class Stage:
    """Temporary output folders, each on the file system of its destination."""

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}
        self._temporary: list[Path] = []
        self._outdated: list[Path] = []

    def folder(self, destination: Path) -> Path:
        """Returns the temporary folder, of the same name, whose files `publish` moves to a destination folder.

        Raises:
            UserError: The destination is not writable.
        """
        destination = destination.resolve()
        if destination not in self._folders:
            place = require_writable(destination)
            try:
                self._temporary.append(Path(mkdtemp(prefix=_PREFIX, dir=place)))
            except OSError as error:
                raise UserError(f"{destination} cannot be written to: {error.strerror}") from error
            folder = self._temporary[-1] / (destination.name or "root")
            folder.mkdir()
            self._folders[destination] = folder
        return self._folders[destination]

    def remove(self, path: Path) -> None:
        """Schedules an outdated file, such as the card of a replaced model, for removal by `publish`, if it exists."""
        self._outdated.append(path)

    def publish(self) -> None:
        """Moves every file to its destination, in the order of the folders, replacing existing files.

        Raises:
            UserError: A destination is not writable.
        """
        moves = [
            (file, destination / file.relative_to(folder))
            for destination, folder in self._folders.items()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]
        for _, destination in moves:
            require_writable(destination.parent)
            if destination.is_dir():
                raise UserError(f"{destination} cannot be written: it is a folder")
        with _uninterrupted():
            for path in self._outdated:
                path.unlink(missing_ok=True)
            for file, destination in moves:
                try:
                    destination.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(destination)
                except OSError as error:
                    raise UserError(f"{destination} cannot be written: {error.strerror}") from error

    def discard(self) -> None:
        """Removes the temporary folders and any files left in them."""
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """Publishes what the block wrote into the stage's folders; nothing if the block fails or is interrupted.

    Raises:
        UserError: A destination is not writable, or the disk is full.
    """
    stage = Stage()
    try:
        yield stage
        stage.publish()
    except OSError as error:
        raise UserError(f"the results cannot be written: {error.strerror or error}") from error
    finally:
        stage.discard()


def require_writable(folder: Path) -> Path:
    """Checks, without writing anything, that a folder is writable or can be created.

    Returns:
        The folder, or its nearest existing parent.

    Raises:
        UserError: It is not writable.
    """
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{folder} cannot be written to: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written to: no permission for {place}")
    return place


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Defers SIGINT and SIGTERM until the block ends; a no-op outside the main thread, which alone receives them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)

    before = {signum: signal.signal(signum, remember) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for number in received[:1]:
            signal.raise_signal(number)
