"""Checksums and signatures of model files."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from medserve_server.errors import ModelLoadError
from medserve_server.registry.integrity import read_checksums, read_model, read_public_key
from servers.server_process import REPOSITORY

CONTENT = bytes(range(256))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
SIGNATURE = KEY.sign(CONTENT)


def model(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "a/1/model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_packaged_models_match_their_checksums() -> None:
    models = REPOSITORY / "models"
    files = {str(path.relative_to(models)): path for path in models.glob("*/*/model.onnx")}
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert read_checksums(models) == found, "make checksums lists them anew"


@settings(deadline=None)
@given(position=st.integers(0, 255), bit=st.integers(0, 7))
def test_any_changed_bit_is_detected(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "bits"
    changed = bytearray(CONTENT)
    changed[position] ^= 1 << bit
    path = model(folder, bytes(changed))
    path.with_name("model.onnx.sig").write_bytes(SIGNATURE)
    with pytest.raises(ModelLoadError, match="its SHA-256 is"):
        read_model(path, max_bytes=256, listed=hashlib.sha256(CONTENT).hexdigest(), public_key=None)
    with pytest.raises(ModelLoadError, match="is not a valid signature of it"):
        read_model(path, max_bytes=256, listed=None, public_key=KEY.public_key())


@settings(deadline=None)
@given(signature=st.binary(max_size=64))
def test_other_bytes_are_not_accepted_as_signature(tmp_path_factory: pytest.TempPathFactory, signature: bytes) -> None:
    path = model(tmp_path_factory.getbasetemp() / "signatures")
    path.with_name("model.onnx.sig").write_bytes(signature)
    with pytest.raises(ModelLoadError, match="is not a valid signature of it"):
        read_model(path, max_bytes=256, listed=None, public_key=KEY.public_key())


def test_a_signed_and_listed_file_is_read(tmp_path: Path) -> None:
    path = model(tmp_path)
    path.with_name("model.onnx.sig").write_bytes(SIGNATURE)
    listed = hashlib.sha256(CONTENT).hexdigest()
    assert read_model(path, max_bytes=256, listed=listed, public_key=KEY.public_key()).content == CONTENT


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="it has 256 bytes, at most 255 are allowed"):
        read_model(model(tmp_path), max_bytes=255, listed=None, public_key=None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no checksum\n", ":1: expected 64 hexadecimal digits"),
        (f"{'a' * 64}  a/1/model.onnx\n{'b' * 64}  ./a/1/model.onnx\n", ":2: a/1/model.onnx is listed twice"),
    ],
)
def test_a_damaged_list_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(text)
    with pytest.raises(ModelLoadError, match=problem):
        read_checksums(tmp_path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    public = generate_private_key(SECP256R1()).public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ModelLoadError, match="it is not an ed25519 public key"):
        read_public_key(key)
