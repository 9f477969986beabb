"""The checksum list of a model repository, against which a server verifies its models."""

import hashlib
from pathlib import Path

from medserve_training.staging import Stage

CHECKSUMS_FILE = "SHA256SUMS"


def update_checksum(model: Path, content: bytes, stage: Stage) -> None:
    """Updates a model's entry in the checksum list of its repository, if the repository has one.

    Args:
        model: Destination of the model, REPOSITORY/NAME/VERSION/model.onnx. A file with another layout is not in a
            repository.
        content: Content of the file.
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
