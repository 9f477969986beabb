"""The optional checksum list of a model repository."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from medserve_training.export.checksums import update_checksum
from medserve_training.staging import staged


def publish(path: Path, content: bytes) -> None:
    with staged() as stage:
        (stage.folder(path.parent) / path.name).write_bytes(content)
        update_checksum(path, content, stage)


def line(name: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {name}/1/model.onnx\n"


def test_a_model_is_listed_and_its_entry_updated(tmp_path: Path) -> None:
    checksums = tmp_path / "SHA256SUMS"
    checksums.touch()
    for name, content in (("b", b"1"), ("a", b"2"), ("b", b"3")):
        publish(tmp_path / name / "1/model.onnx", content)
    assert checksums.read_text() == line("a", b"2") + line("b", b"3")
    sha256sum = shutil.which("sha256sum")
    assert sha256sum is not None
    subprocess.run([sha256sum, "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)


def test_a_model_that_another_program_listed_is_listed_once(tmp_path: Path) -> None:
    checksums = tmp_path / "SHA256SUMS"
    checksums.write_text(line("./a", b"1") + line("./b", b"2"))
    publish(tmp_path / "a/1/model.onnx", b"3")
    assert sorted(checksums.read_text().splitlines(keepends=True)) == sorted([line("a", b"3"), line("./b", b"2")])


def test_a_repository_without_a_list_gets_none(tmp_path: Path) -> None:
    publish(tmp_path / "a/1/model.onnx", b"1")
    assert not (tmp_path / "SHA256SUMS").exists()


def test_a_list_in_another_format_is_unchanged(tmp_path: Path) -> None:
    checksums = tmp_path / "SHA256SUMS"
    checksums.write_text("of other files\n")
    publish(tmp_path / "runs/latest/model.onnx", b"1")
    assert checksums.read_text() == "of other files\n"
