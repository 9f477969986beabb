"""Reads a model file once, and holds these very bytes against a size, a checksum and a signature."""

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from medserve_server.engine.model_file import CHECKSUMS_FILE, ModelFile
from medserve_server.errors import ModelLoadError, TransientLoadError
from medserve_server.registry.discovery import SIGNATURE_FILE

if TYPE_CHECKING:  # of the extra `signing`
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_BYTES = 64  # RFC 8032, section 5.1.6
MAX_INDEX_BYTES = 1024 * 1024
CHECKSUM = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")  # as coreutils' sha256sum writes it


def read_model(
    path: Path,
    *,
    max_bytes: int,
    listed: str | None,
    public_key: "Ed25519PublicKey | None",
) -> ModelFile:
    """Reads a model and checks what its repository asks for.

    Args:
        path: .../<name>/<version>/model.onnx.
        max_bytes: of the file.
        listed: its checksum by the repository's list, empty where it is not on the list; None where there is no list.
        public_key: what `read_public_key` gave; None asks for no signature.

    Raises:
        TransientLoadError: it can't be read.
        ModelLoadError: it is too large, or is not what was listed or signed.
    """
    content = _read(path, max_bytes)
    sha256 = hashlib.sha256(content).hexdigest()
    if listed is not None:
        _check_sum(path, sha256, listed)
    if public_key is not None:
        _check_signature(path, content, public_key)
    return ModelFile(path, content, sha256, self_contained=listed is not None or public_key is not None)


def read_checksums(folder: Path) -> dict[str, str] | None:
    """The repository's list of checksums by <name>/<version>/model.onnx; None where it has none.

    Raises:
        ModelLoadError: the list can't be read.
    """
    path = folder / CHECKSUMS_FILE
    if not _is_there(path):
        return None
    checksums: dict[str, str] = {}
    for number, line in enumerate(_read(path, MAX_INDEX_BYTES).decode(errors="replace").splitlines(), start=1):
        entry = CHECKSUM.fullmatch(line)
        if entry is None:
            raise ModelLoadError(f"{path}:{number}: expected 64 hexadecimal digits, two spaces and a path")
        if checksums.setdefault(entry[2], entry[1]) != entry[1]:
            raise ModelLoadError(f"{path}:{number}: {entry[2]} is listed twice, with different checksums")
    return checksums


def read_public_key(path: Path) -> "Ed25519PublicKey":
    """Reads an ed25519 public key from a PEM file.

    Raises:
        ModelLoadError: there is none in it.
        ModuleNotFoundError: the extra is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--require-signed needs the extra signing: "
            "pip install '.[signing]' in a checkout of medserve, or 'FILE.whl[signing]' with its wheel"
        ) from error
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"--require-signed {path}: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ModelLoadError(f"--require-signed {path}: it is no ed25519 public key")
    return key


def _check_sum(path: Path, sha256: str, listed: str) -> None:
    if not listed:
        raise ModelLoadError(
            f"{path}: {CHECKSUMS_FILE} does not list it; "
            f"in the repository's folder, sha256sum */*/model.onnx > {CHECKSUMS_FILE} lists all that is there"
        )
    if listed != sha256:
        raise ModelLoadError(f"{path}: its SHA-256 is {sha256}, but {CHECKSUMS_FILE} says {listed}")


def _check_signature(path: Path, content: bytes, public_key: "Ed25519PublicKey") -> None:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - of the extra `signing`

    signature = path.with_name(SIGNATURE_FILE)
    if not _is_there(signature):
        raise ModelLoadError(f"{path}: it is not signed: there is no {signature.name} beside it")
    try:
        public_key.verify(_read(signature, SIGNATURE_BYTES), content)
    except InvalidSignature:
        raise ModelLoadError(f"{path}: {signature.name} is no signature of it by the key of --require-signed") from None


def _is_there(path: Path) -> bool:
    """Whether there is something by that name. `os.path.lexists` says no where it can't tell."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise TransientLoadError(f"{path}: it can't be looked up: {error.strerror}") from error
    return True


def _read(path: Path, max_bytes: int) -> bytes:
    """Reads a regular file that nobody is writing; never waits for a FIFO or a device."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelLoadError(f"{path}: it is no file")
            if status.st_size > max_bytes:
                raise ModelLoadError(f"{path}: it has {status.st_size} bytes, at most {max_bytes} are allowed")
            content = file.read(status.st_size + 1)
    except OSError as error:
        raise TransientLoadError(f"{path}: it can't be read: {error.strerror}") from error
    if len(content) != status.st_size:
        raise TransientLoadError(f"{path}: its size changed while it was read")
    return content
