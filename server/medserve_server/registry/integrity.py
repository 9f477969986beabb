"""Reads a model file once and verifies the size, checksum and signature of exactly the bytes that were read."""

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from medserve_server.engine.model_file import CHECKSUMS_FILE, ModelFile
from medserve_server.errors import ModelLoadError, TransientLoadError
from medserve_server.registry.discovery import SIGNATURE_FILE

if TYPE_CHECKING:  # from the extra `signing`
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_BYTES = 64  # RFC 8032, section 5.1.6
MAX_INDEX_BYTES = 1024 * 1024
CHECKSUM = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")  # format of coreutils' sha256sum


def read_model(
    path: Path,
    *,
    max_bytes: int,
    listed: str | None,
    public_key: "Ed25519PublicKey | None",
) -> ModelFile:
    """Reads a model file and verifies its checksum and signature as far as required.

    Args:
        path: .../<name>/<version>/model.onnx.
        max_bytes: maximum size of the file.
        listed: checksum from the repository's checksum file, empty if the model is not listed in it; None if the
            repository has no checksum file.
        public_key: key returned by `read_public_key`; None if no signature is required.

    Raises:
        TransientLoadError: the file cannot be read.
        ModelLoadError: the file is too large, or does not match its checksum or signature.
    """
    content = _read(path, max_bytes)
    sha256 = hashlib.sha256(content).hexdigest()
    if listed is not None:
        _check_checksum(path, sha256, listed)
    if public_key is not None:
        _check_signature(path, content, public_key)
    return ModelFile(path, content, sha256, self_contained=listed is not None or public_key is not None)


def read_checksums(folder: Path) -> dict[str, str] | None:
    """Reads the repository's checksum file: checksums by <name>/<version>/model.onnx; None if there is no such file.

    Raises:
        ModelLoadError: the checksum file cannot be read or parsed.
    """
    path = folder / CHECKSUMS_FILE
    if not _exists(path):
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
        ModelLoadError: the file cannot be read or contains no ed25519 public key.
        ModuleNotFoundError: the extra `signing` is not installed.
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
        raise ModelLoadError(f"--require-signed {path}: it is not an ed25519 public key")
    return key


def _check_checksum(path: Path, sha256: str, listed: str) -> None:
    if not listed:
        raise ModelLoadError(
            f"{path}: {CHECKSUMS_FILE} does not list it; "
            f"run sha256sum */*/model.onnx > {CHECKSUMS_FILE} in the repository's folder to list all models"
        )
    if listed != sha256:
        raise ModelLoadError(f"{path}: its SHA-256 is {sha256}, but {CHECKSUMS_FILE} says {listed}")


def _check_signature(path: Path, content: bytes, public_key: "Ed25519PublicKey") -> None:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - from the extra `signing`

    signature = path.with_name(SIGNATURE_FILE)
    if not _exists(signature):
        raise ModelLoadError(f"{path}: it is not signed: there is no {signature.name} in its folder")
    try:
        public_key.verify(_read(signature, SIGNATURE_BYTES), content)
    except InvalidSignature:
        raise ModelLoadError(
            f"{path}: {signature.name} is not a valid signature of it with the key of --require-signed"
        ) from None


def _exists(path: Path) -> bool:
    """Returns whether a path exists. Unlike `os.path.lexists`, raises an error if that cannot be determined."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise TransientLoadError(f"{path}: it cannot be accessed: {error.strerror}") from error
    return True


def _read(path: Path, max_bytes: int) -> bytes:
    """Reads a regular file and detects a concurrent change of its size; never blocks on a FIFO or a device."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelLoadError(f"{path}: it is not a regular file")
            if status.st_size > max_bytes:
                raise ModelLoadError(f"{path}: it has {status.st_size} bytes, at most {max_bytes} are allowed")
            content = file.read(status.st_size + 1)
    except OSError as error:
        raise TransientLoadError(f"{path}: it cannot be read: {error.strerror}") from error
    if len(content) != status.st_size:
        raise TransientLoadError(f"{path}: its size changed while it was being read")
    return content
