"""The repository's list of checksums: what a server holds each model against."""

import hashlib
from pathlib import Path

CHECKSUMS_FILE = "SHA256SUMS"


def list_anew(model: Path) -> None:
    """Puts a model's checksum into the list of its repository, where the repository keeps one.

    Args:
        model: REPOSITORY/NAME/VERSION/model.onnx. A file that lies otherwise is in no repository.
    """
    model = model.absolute()
    repository = model.parents[2]
    checksums = repository / CHECKSUMS_FILE
    if not (model.parent.name.isdecimal() and checksums.is_file()):
        return
    name = model.relative_to(repository).as_posix()
    others = [line for line in checksums.read_text().splitlines() if line[66:] != name]
    lines = [*others, f"{hashlib.sha256(model.read_bytes()).hexdigest()}  {name}"]
    temporary = checksums.with_name(f"{CHECKSUMS_FILE}.unfinished")
    temporary.write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[66:])))
    temporary.replace(checksums)
