"""`medserve classify` of folders, and its result files, which a later run resumes."""

import csv
import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medserve_client.cli import main
from medserve_command import run
from samples.dicom_files import dicom
from samples.patient import PATIENT
from servers.server_process import ServerProcess

Captured = pytest.CaptureFixture[str]
COUNT = 5


@pytest.fixture(scope="session")
def transport() -> str:
    """One transport suffices, since these tests are about the command."""
    return "grpcio"


@pytest.fixture
def target(server: ServerProcess) -> str:
    return server.target


@pytest.fixture
def folder(tmp_path: Path, image_file: bytes) -> Path:
    """A folder with COUNT images and a corrupt file."""
    made = tmp_path / "scans"
    made.mkdir()
    for index in range(COUNT):
        (made / f"{index}.png").write_bytes(image_file)
    (made / "broken.png").write_bytes(b"not an image")
    return made


def read(path: Path) -> list[dict[str, str]]:
    """Returns the results of all files; every line must be complete."""
    text = path.read_text()
    assert text.endswith("\n")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(text.splitlines()))


def names(path: Path) -> list[str]:
    return [Path(row["file"]).name for row in read(path)]


EVERYTHING = sorted([*(f"{index}.png" for index in range(COUNT)), "broken.png"])


def test_folder_is_read_in_order_and_skipped_files_are_listed(target: str, tmp_path: Path, image_file: bytes) -> None:
    for name in ("b/2.PNG", "b/10.png", "a/deep/er/x.jpeg", "c.tif", "without suffix", "b.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_file)
    (tmp_path / "a/scan").write_bytes(dicom(np.zeros((28, 28), np.uint8)))
    for name in ("notes.txt", "b/report", "DICOMDIR"):
        (tmp_path / name).write_bytes(dicom(np.zeros((2, 2), np.uint8)) if name == "DICOMDIR" else b"text")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would block forever
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b/self.link").symlink_to("self.link")
    (tmp_path / "gone.png").symlink_to("nowhere")
    done = run("medserve", "--server", target, "classify", "--json", tmp_path)
    printed_result = [json.loads(line) for line in done.stdout.splitlines()]
    expected = ["a/deep/er/x.jpeg", "a/scan", "b/10.png", "b/2.PNG", "b.png", "c.tif", "gone.png", "without suffix"]
    assert [one["file"] for one in printed_result] == [f"{tmp_path}/{name}" for name in expected]
    assert [one["file"] for one in printed_result if "error" in one] == [f"{tmp_path}/gone.png"]
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("skipped")]
    left_out = line.partition(": ")[2].split(", ")
    others = ["DICOMDIR", "a/loop", "b/report", "b/self.link", "notes.txt", "pipe.png"]
    assert left_out == [f"{tmp_path}/{name}" for name in others]


def test_folder_without_images_is_reported(target: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    done = run("medserve", "--server", target, "classify", tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"medserve: there are no images in {tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder_is_an_error(target: str, folder: Path, capsys: Captured) -> None:
    (folder / "closed").mkdir(mode=0)
    assert main(["--server", target, "classify", str(folder)]) == 1
    assert f"{folder}/closed: cannot be read: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("format_", [".csv", ".jsonl"])
def test_results_record_their_origin(target: str, tmp_path: Path, image_file: bytes, format_: str) -> None:
    scan, plain, output = tmp_path / "scan.dcm", tmp_path / "plain.png", tmp_path / f"results{format_}"
    scan.write_bytes(dicom(np.zeros((28, 28), np.uint8), SOPInstanceUID="1.2.840.1"))
    plain.write_bytes(image_file)
    assert main(["--server", target, "classify", str(scan), str(plain), "-o", str(output)]) == 0
    (of_scan, of_plain) = read(output)
    assert (of_scan["sop_instance_uid"], of_plain.get("sop_instance_uid", "")) == ("1.2.840.1", "")
    described = json.loads(run("medserve", "--server", target, "describe", "chest-xray", "--json").stdout)
    for row in (of_scan, of_plain):
        assert (row["model"], row["version"], row["model_sha256"]) == ("chest-xray", "1", described["sha256"])
        assert len(row["request_id"]) == 32
    assert of_scan["request_id"] == of_plain["request_id"]


@pytest.mark.parametrize("format_", [".csv", ".jsonl"])
@pytest.mark.parametrize("cut", [0, 1, 20, 0.3, 0.5, 0.8, -1])
def test_interrupted_run_is_resumed(target: str, tmp_path: Path, folder: Path, format_: str, cut: float) -> None:
    output = tmp_path / f"results{format_}"
    command = ["--server", target, "classify", str(folder), "-o", str(output)]
    assert main(command) == 1
    whole = output.read_bytes()
    assert names(output) == EVERYTHING
    kept = int(cut * len(whole)) if 0 < cut < 1 else int(cut) % len(whole)
    output.write_bytes(whole[:kept])
    assert main(command) == 1
    assert sorted(names(output)) == EVERYTHING
    # Complete lines are kept, except the error, which is retried.
    lines = [line for line in whole[:kept].splitlines(keepends=True) if line.endswith(b"\n") and b"broken" not in line]
    assert output.read_bytes().startswith(b"".join(lines))
    assert {path.name for path in tmp_path.iterdir()} == {"scans", output.name}


@pytest.mark.parametrize("format_", [".csv", ".jsonl"])
def test_only_new_changed_or_failed_files_are_classified_again(
    target: str, tmp_path: Path, folder: Path, image_file: bytes, format_: str, capsys: Captured
) -> None:
    output = tmp_path / f"results{format_}"
    command = ["--server", target, "classify", str(folder), "-o", str(output)]
    main(command)
    capsys.readouterr()
    assert main(command) == 1
    assert f"{output}: has the results of {COUNT} of {COUNT + 1} files" in capsys.readouterr().err
    before = {row["file"]: row["request_id"] for row in read(output) if row.get("request_id")}
    os.utime(folder / "2.png", ns=(0, 1))
    (folder / "new.png").write_bytes(image_file)
    (folder / "broken.png").write_bytes(image_file)
    capsys.readouterr()
    assert main(command) == 0
    assert f"{output}: has the results of {COUNT - 1} of {COUNT + 2} files" in capsys.readouterr().err
    rows = {row["file"]: row for row in read(output)}
    assert len(rows) == len(read(output)) == COUNT + 2
    again = {Path(name).name for name, row in rows.items() if row["request_id"] != before.get(name)}
    assert again == {"2.png", "new.png", "broken.png"}
    whole = output.read_bytes()
    assert main(command) == 0
    assert output.read_bytes() == whole


@pytest.mark.parametrize("name", ["results.txt", "results", "results.json"])
@pytest.mark.parametrize("command", ["classify", "risk"])
def test_unknown_suffix_is_refused(name: str, command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main([command, "x", "--output", name])
    assert f"'{name}' has no known suffix; expected a file name that ends in .csv or .jsonl" in capsys.readouterr().err


FOREIGN = {
    "another table": (".csv", b"file,size\na.png,7\n"),
    "a table without an end": (".csv", b"file;size"),
    "another document": (".jsonl", b'{"name": "x"}\n'),
    "a document without an end": (".jsonl", b'{"name": "x"}'),
    "text": (".jsonl", b"{broken\n"),
    "bytes": (".jsonl", b"\xff\xfe\n"),
    "another model's": (
        ".jsonl",
        b'{"file": "a", "frame": 0, "size": 1, "mtime_ns": 1, "model": "m", "version": "9", "model_sha256": "ab"}\n',
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_output_file_is_refused_and_not_changed(
    target: str, folder: Path, tmp_path: Path, kind: str, capsys: Captured
) -> None:
    format_, content = FOREIGN[kind]
    output = tmp_path / f"results{format_}"
    output.write_bytes(content)
    assert main(["--server", target, "classify", str(folder), "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"medserve: {output}:1: is ")
    assert error.endswith("; choose another file\n")
    assert output.read_bytes() == content


def test_full_disk_leaves_complete_lines(target: str, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    main(["--server", target, "classify", str(folder), "-o", str(output)])
    size = output.stat().st_size
    output.unlink()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    command = [sys.executable, "-m", "medserve_client.cli", "--server", target, "classify", str(folder)]
    ended = subprocess.run([*command, "-o", output], capture_output=True, text=True, check=False, preexec_fn=limit)
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert f"{output}: cannot be written: File too large" in ended.stderr
    assert 0 < len(read(output)) < len(EVERYTHING)


@pytest.mark.parametrize("reachable", [False, True])
def test_failed_command_leaves_no_file(target: str, folder: Path, tmp_path: Path, *, reachable: bool) -> None:
    server = target if reachable else "127.0.0.1:1"
    refused = ("--occlusion", "--label", "no such label")
    output = tmp_path / "results.jsonl"
    ended = run("medserve", "--server", server, "classify", folder / "0.png", *refused, "-o", output)
    assert ended.returncode == (4 if reachable else 3)
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_maps_are_refused_for_csv_output(target: str, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    command = ["--server", target, "classify", str(folder), "--occlusion", "-o"]
    assert main([*command, str(tmp_path / "results.csv")]) == 2
    assert "a CSV cannot hold maps" in capsys.readouterr().err
    output = tmp_path / "results.jsonl"
    assert main([*command, str(output)]) == 1
    assert [Path(one["file"]).name for one in read(output) if "occlusion" not in one] == ["broken.png"]


def test_progress_bar_does_not_affect_standard_output(target: str, folder: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "medserve_client.cli", "--server", target, "classify", "--json", str(folder)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(controller, 4096):
            shown += part
    except OSError:
        pass  # how Linux reports that the other end of a terminal is closed
    os.close(controller)
    output, _ = process.communicate()
    assert [Path(json.loads(line)["file"]).name for line in output.splitlines()] == EVERYTHING
    assert b"Images" in shown
    assert f"{COUNT + 1}/{COUNT + 1}".encode() in shown
    piped = run("medserve", "--server", target, "classify", "--json", folder)
    assert "Images" not in piped.stderr


def test_risks_as_json_lines(target: str, tmp_path: Path, capsys: Captured) -> None:
    path, output = tmp_path / "patients.csv", tmp_path / "risks.jsonl"
    path.write_text(",".join(PATIENT) + "\n" + ",".join(map(str, PATIENT.values())) + "\n")
    command = ["--server", target, "risk", str(path)]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr().out
    assert main([*command, "-o", str(output)]) == 0
    printed_result, written = (json.loads(text) for text in (printed, output.read_text()))
    assert len({printed_result.pop("request_id"), written.pop("request_id")}) == 2
    assert printed_result == written
    assert (printed_result["model"], printed_result["version"], len(printed_result["model_sha256"])) == (
        "breast-cancer-risk",
        "1",
        64,
    )
