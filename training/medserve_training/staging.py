"""Files of a command that appear at their destinations together, once all of them are whole."""

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

# The server's repository doesn't look into folders whose names begin with a dot.
_PREFIX = ".unfinished-"


class Stage:
    """Temporary folders on the file systems of the destinations."""

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}
        self._temporary: list[Path] = []
        self._outdated: list[Path] = []

    def folder(self, destination: Path) -> Path:
        """The temporary folder, of the same name, whose files go to a destination folder in the end.

        Raises:
            UserError: The destination can't be written to.
        """
        destination = destination.resolve()
        if destination not in self._folders:
            place = require_writable(destination)
            try:
                self._temporary.append(Path(mkdtemp(prefix=_PREFIX, dir=place)))
            except OSError as error:
                raise UserError(f"{destination} can't be written to: {error.strerror}") from error
            folder = self._temporary[-1] / (destination.name or "root")
            folder.mkdir()
            self._folders[destination] = folder
        return self._folders[destination]

    def remove(self, path: Path) -> None:
        """Has a file that describes what is replaced removed in the end, if it is there then."""
        self._outdated.append(path)

    def publish(self) -> None:
        """Moves every file to its destination, in the order of the folders; a file that is there is replaced.

        Raises:
            UserError: A destination can't be written to.
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
                raise UserError(f"{destination} can't be written: it is a folder")
        with _uninterrupted():
            for path in self._outdated:
                path.unlink(missing_ok=True)
            for file, destination in moves:
                try:
                    destination.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(destination)
                except OSError as error:
                    raise UserError(f"{destination} can't be written: {error.strerror}") from error

    def discard(self) -> None:
        """Removes the temporary folders with what is left in them."""
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """Publishes what the block wrote into the stage's folders; nothing if the block fails or is interrupted.

    Raises:
        UserError: A destination can't be written to, or the disk is full.
    """
    stage = Stage()
    try:
        yield stage
        stage.publish()
    except OSError as error:
        raise UserError(f"the results can't be written: {error.strerror or error}") from error
    finally:
        stage.discard()


def require_writable(folder: Path) -> Path:
    """Checks, without writing anything, that files can be put into a folder that may have to be made first.

    Returns:
        The folder, or the nearest one above it that is there.

    Raises:
        UserError: They can't.
    """
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{folder} can't be written to: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{folder} can't be written to: no permission for {place}")
    return place


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds SIGINT and SIGTERM back until the block has ended; only the main thread gets any."""
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
