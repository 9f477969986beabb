"""Which files to classify: those that are named, and in folders those that look like pictures."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".dcm", ".dicom"})
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DICOM = (b"DICM", 128)
"""What a DICOM file has behind its preamble, and where."""
_INDEX = "DICOMDIR"
"""Lists the DICOM files of a medium, and is a DICOM file without a picture itself."""


@dataclass(slots=True)
class Listing:
    """The files that were found.

    Attributes:
        pictures: in the order of the arguments, those of a folder sorted; also what is in `unreadable`.
        others: files in folders that don't look like pictures, and links to folders.
        unreadable: folders, with the reason.
    """

    pictures: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def find_pictures(names: Sequence[str]) -> Listing:
    """Lists files, and the pictures in folders and the folders below them. Links to folders are not followed."""
    found = Listing()
    for name in names:
        if name == "-" or not Path(name).is_dir():
            found.pictures.append(name)
        else:
            _add_folder(name, found)
    return found


def _add_folder(folder: str, found: Listing) -> None:
    waiting = [folder]
    while waiting:
        name = waiting.pop()
        path = Path(name)
        if name == folder or (path.is_dir() and not path.is_symlink()):
            try:
                names = sorted(os.listdir(name), reverse=True)  # noqa: PTH208 - texts, to keep the folder as it is named
            except OSError as error:
                found.pictures.append(name)
                found.unreadable[name] = error.strerror or type(error).__name__
                continue
            waiting += [os.path.join(name, one) for one in names]  # noqa: PTH118
        else:
            (found.pictures if _looks_like_a_picture(path) else found.others).append(name)


def _looks_like_a_picture(path: Path) -> bool:
    """Whether it is a file with a suffix or a beginning of a picture; a dangling link is judged by its suffix."""
    if path.name == _INDEX or (path.exists() and not path.is_file()):
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    mark, place = _DICOM
    try:
        with path.open("rb") as file:
            beginning = file.read(place + len(mark))
    except OSError:  # without a suffix that says so, it is nothing that anybody asked about
        return False
    return beginning.startswith(_BEGINNINGS) or beginning[place:] == mark
