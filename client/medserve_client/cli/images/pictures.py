"""Pictures that belong to image files, in a folder of the user's choice."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medserve_client.cli.exit_codes import UsageError


def check_names(files: Sequence[str]) -> None:
    """Checks that no two images would have the same pictures.

    Raises:
        UsageError: some would; the message has their name.
    """
    name, count = Counter(map(_stem, files)).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} images are named {name}: their overlays would overwrite each other")


def save(folder: Path, file: str, kind: str, content: bytes) -> None:
    """Writes a picture of an image file, e.g. `image.occlusion.png`; creates the folder.

    Raises:
        UsageError: the folder is not writable.
    """
    path = folder / f"{_stem(file)}.{kind}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _stem(file: str) -> str:
    return "stdin" if file == "-" else Path(file).stem
