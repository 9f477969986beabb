"""Discovers the <name>/<version>/model.onnx files of a model repository and the state of the files of each version."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medserve_server.version_policy import NAME, VERSION

MODEL_FILE = "model.onnx"
CARDS = {"card.md", "card.html"}  # documentation, not part of the model
SIGNATURE_FILE = "model.onnx.sig"
MAX_FILES = 1000  # of one version

FileState = tuple[str, int, int, int, int]
"""Name, size, mtime, ctime, inode."""
Key = tuple[str, str]
"""Name and version; the version is empty if the folder of the name cannot be listed."""


@dataclass(frozen=True, slots=True)
class Found:
    """A version found in the repository."""

    path: Path
    """Path of its model.onnx."""
    files: tuple[FileState, ...] = ()
    """State of all files of the version; equal as long as none of them changes."""
    problem: str | None = None
    """Why it cannot be served, if that is known without opening a file."""

    @property
    def external_data(self) -> tuple[FileState, ...]:
        """The files other than the model and its signature."""
        return tuple(file for file in self.files if file[0] not in {MODEL_FILE, SIGNATURE_FILE})


def is_valid_key(key: Key) -> bool:
    """Returns whether a name and a version are valid."""
    return NAME.fullmatch(key[0]) is not None and VERSION.fullmatch(key[1]) is not None


def find_versions(folder: Path) -> dict[Key, Found]:
    """Finds every version of every model, except in folders whose names begin with a dot.

    Raises:
        OSError: the folder itself cannot be listed, or was moved or replaced meanwhile, so that versions that were not
            found may still exist.
    """
    before = folder.stat()
    root = folder.resolve(strict=True)
    found: dict[Key, Found] = {}
    for name in _folders(folder):
        try:
            versions = _folders(folder / name)
        except OSError as error:
            found[name, ""] = Found(folder / name, problem=f"the folder cannot be listed: {error.strerror}")
            continue
        for version in versions:
            entry = _inspect(name, version, folder / name / version / MODEL_FILE, root)
            if entry is not None:
                found[name, version] = entry
    if not os.path.samestat(before, folder.stat()):
        raise OSError(errno.ESTALE, "it was replaced while it was read")
    return found


def _folders(parent: Path) -> list[str]:
    with os.scandir(parent) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _inspect(name: str, version: str, path: Path, root: Path) -> Found | None:
    """Returns the state of one version; None if it has no model.onnx."""
    try:
        path.lstat()
        if not NAME.fullmatch(name):
            return Found(path, problem=f"{name!r} is not a valid model name; use letters, digits, '.', '_' and '-'")
        if not VERSION.fullmatch(version):
            return Found(path, problem=f"{version!r} is not a valid version; use a whole number from 1")
        if not _real(path).is_relative_to(root):
            return Found(path, problem="it is a link that points outside the repository")
        files, problem = _files(path.parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Found(path, problem=f"it cannot be read: {error.strerror}")
    if MODEL_FILE not in {file[0] for file in files}:
        problem = problem or "it is not a regular file"
    return Found(path, files, problem)


def _real(path: Path) -> Path:
    """Resolves links. Without `strict`, a link that temporarily cannot be read would be mistaken for a file."""
    try:
        return Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ELOOP}:  # a dangling link, or a link to itself
            raise
        return Path(os.path.realpath(path))


def _files(folder: Path) -> tuple[tuple[FileState, ...], str | None]:
    """Returns the states of all files of a version, including those in subfolders, and a problem with one of them."""
    files: list[FileState] = []
    problem = None
    for path in _walk(folder):
        try:
            status = path.stat()
        except OSError:  # a dangling link, or a link to itself
            status = path.lstat()
        name = str(path.relative_to(folder))
        if name in CARDS:
            continue
        files.append((name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO or a device could block forever
            problem = f"{name[:128]!r} in its folder is neither a regular file nor a link to one"
        if len(files) > MAX_FILES:
            return tuple(files), f"its folder contains more than {MAX_FILES} files"
    return tuple(sorted(files)), problem


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=fail):
        for name in names:
            yield Path(parent, name)
