"""Finds the files to send: those named as arguments, and the image files in folders."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import UsageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".dcm", ".dicom"})
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DICOM = (b"DICM", 128)
"""The prefix of a DICOM file after its preamble, and its offset."""
# Maximum number of skipped files named on standard error.
_NAMED = 10
_INDEX = "DICOMDIR"
"""A DICOM file without an image that lists the DICOM files of a medium."""


@dataclass(slots=True)
class Listing:
    """The files found.

    Attributes:
        images: images in argument order, sorted within a folder; includes the folders in `unreadable`.
        others: files in folders that are not images, and symbolic links to folders.
        unreadable: folders that cannot be read, with the reason.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def find_images(names: Sequence[str]) -> Listing:
    """Lists files, and the images in folders recursively. Symbolic links to folders are not followed.

    Names some of the skipped files on standard error.

    Raises:
        UsageError: no images were found.
    """
    found = Listing()
    for name in names:
        if name == "-" or not Path(name).is_dir():
            found.images.append(name)
        else:
            _add_folder(name, found)
    if count := len(found.others):
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        terminal.print_error(f"skipped, not images by suffix or content: {', '.join(found.others[:_NAMED])}{more}")
    if not found.images:
        raise UsageError(f"there are no images in {', '.join(names)}")
    return found


def _add_folder(folder: str, found: Listing) -> None:
    waiting = [folder]
    while waiting:
        name = waiting.pop()
        path = Path(name)
        if name == folder or (path.is_dir() and not path.is_symlink()):
            try:
                names = sorted(os.listdir(name), reverse=True)  # noqa: PTH208 - strings, to keep the folder's spelling
            except OSError as error:
                found.images.append(name)
                found.unreadable[name] = error.strerror or type(error).__name__
                continue
            waiting += [os.path.join(name, one) for one in names]  # noqa: PTH118
        else:
            (found.images if _looks_like_an_image(path) else found.others).append(name)


def _looks_like_an_image(path: Path) -> bool:
    """Returns whether a file has the suffix or first bytes of an image; a dangling link is judged by its suffix."""
    if path.name == _INDEX or (path.exists() and not path.is_file()):
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    mark, place = _DICOM
    try:
        with path.open("rb") as file:
            beginning = file.read(place + len(mark))
    except OSError:  # not named by the user and without an image suffix: skipped
        return False
    return beginning.startswith(_BEGINNINGS) or beginning[place:] == mark
