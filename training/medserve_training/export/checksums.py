"""The repository's list of checksums: what a server holds each model against."""

import hashlib
from pathlib import Path

from medserve_training.staging import Stage

CHECKSUMS_FILE = "SHA256SUMS"


def list_anew(model: Path, content: bytes, stage: Stage) -> None:
    """Puts a model's checksum into the list of its repository, where the repository keeps one.

    Args:
        model: Destination of the model, REPOSITORY/NAME/VERSION/model.onnx. A file that lies otherwise is in no
            repository.
        content: The file that goes there.
        stage: Publishes the list together with the model.
    """
    model = model.absolute()
    if len(model.parents) < 3:
        return
    repository = model.parents[2]
    checksums = repository / CHECKSUMS_FILE
    if not (model.parent.name.isdecimal() and checksums.is_file()):
        return
    name = model.relative_to(repository).as_posix()
    others = [
        line for line in checksums.read_text(encoding="utf-8").splitlines() if line[66:].removeprefix("./") != name
    ]
    lines = [*others, f"{hashlib.sha256(content).hexdigest()}  {name}"]
    text = "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[66:]))
    (stage.folder(repository) / CHECKSUMS_FILE).write_text(text, encoding="utf-8")
