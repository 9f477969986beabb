"""The `medserve` command against a real server."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from medserve_client.cli import main

Captured = pytest.CaptureFixture[str]


def test_models_are_listed(clinic: str, capsys: Captured) -> None:
    assert main(["--server", clinic, "models"]) == 0
    shown = capsys.readouterr().out
    for word in ("lungs", "image classification", "Relapse in test patients", "cpu"):
        assert word in shown


def test_the_server_may_be_given_after_the_subcommand_or_in_the_environment(
    clinic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["models", "--server", clinic]) == 0
    monkeypatch.setenv("MEDSERVE_SERVER", clinic)
    assert main(["models"]) == 0


def test_describe_a_risk_model(clinic: str, capsys: Captured) -> None:
    assert main(["--server", clinic, "describe", "relapse"]) == 0
    shown = capsys.readouterr().out
    for words in ("0 to 120 years", "21 to 80", "I, II, III", " II ", " 25 ", "refused", "1826"):
        assert words in shown
    assert "concordance_index" in shown
    assert "0.6250" in shown


def test_describe_an_image_model(clinic: str, capsys: Captured) -> None:
    assert main(["--server", clinic, "describe", "lungs", "--version", "1"]) == 0
    shown = capsys.readouterr().out
    for words in ("28 x 28 pixels, gray", "normal, pneumonia", "sensitive", "0.25"):
        assert words in shown


def test_describe_as_json(clinic: str, capsys: Captured) -> None:
    assert main(["--server", clinic, "describe", "relapse", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["name"], document["version"], document["sha256"]) == ("relapse", "1", "5ca1ab1e")
    assert document["manifest"]["patient_risk"]["features"][0]["name"] == "age"


def test_an_unknown_model_is_rejected(clinic: str, capsys: Captured) -> None:
    assert main(["--server", clinic, "describe", "liver"]) == 4
    assert capsys.readouterr().err == "medserve: no model liver here; there are lungs, relapse\n"


def test_classify_shows_a_table(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "xray.png"
    path.write_bytes(b"four")
    assert main(["--server", clinic, "classify", str(path)]) == 0
    captured = capsys.readouterr()
    for words in (
        str(path),
        "pneumonia at 25.0% or above (sensitive)",
        "normal 75.0%, pneumonia 25.0%",
        "encoded 4",
    ):
        assert words in captured.out
    assert captured.err == ""


def test_classify_accepts_a_frame(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "scan.dcm"
    path.write_bytes(b"four")
    assert main(["--server", clinic, "classify", "--json", "--frame", "3", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"][0]["message"] == "encoded 4, frame 3"


def test_invalid_files_do_not_stop_the_others(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    files = []
    for index in range(150):
        files.append(tmp_path / f"{index}.png")
        files[-1].write_bytes(b"bad" if index % 50 == 7 else bytes(index + 1))
    files[100].unlink()
    assert main(["--server", clinic, "classify", "--json", *map(str, files)]) == 1
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["file"] for line in lines] == [str(file) for file in files]
    assert [index for index, line in enumerate(lines) if "error" in line] == [7, 57, 100, 107]
    # Each image received its own result, not its neighbor's.
    assert lines[8]["warnings"] == [{"kind": "resized", "message": "encoded 9"}]
    assert lines[149]["warnings"] == [{"kind": "resized", "message": "encoded 150"}]
    assert f"{files[57]}: not a PNG, JPEG or TIFF file\n" in captured.err
    assert f"{files[100]}: cannot be read: No such file or directory\n" in captured.err


def test_a_file_above_the_limit_fails_alone(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    large, small = tmp_path / "large.tiff", tmp_path / "small.png"
    large.write_bytes(bytes(5 * 1024 * 1024))  # the test server has gRPC's default limit of 4 MiB
    small.write_bytes(b"four")
    assert main(["--server", clinic, "classify", "--json", str(large), str(small)]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "larger than max" in first["error"]
    assert second["decision"]["label"] == "pneumonia"


def test_classify_standard_input(clinic: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"seven b")))
    assert main(["--server", clinic, "classify", "--json", "--top-k", "1", "-"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["file"], line["model"], line["version"]) == ("-", "lungs", "1")
    assert line["labels"] == [{"label": "normal", "probability": 0.75}]
    assert line["decision"] == {
        "label": "pneumonia",
        "operating_point": "sensitive",
        "positive_label": "pneumonia",
        "threshold": 0.25,
    }
    assert line["warnings"][0]["message"] == "encoded 7"


def test_classify_with_a_model_for_another_task_is_rejected(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    assert main(["--server", clinic, "classify", "--model", "relapse", str(tmp_path / "xray.png")]) == 2
    assert capsys.readouterr().err == "medserve: relapse is not a model for image classification\n"


def test_control_characters_in_a_file_name_are_escaped(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "\x1b[31m[bold]xray\n.png"
    path.write_bytes(b"four")
    bad = tmp_path / "\x1b]0;title\x07.png"
    assert main(["--server", clinic, "classify", str(path), str(bad)]) == 1
    captured = capsys.readouterr()
    assert r"\x1b[31m[bold]xray\n.png" in captured.out
    assert r"\x1b]0;title\x07.png: cannot be read" in captured.err
    assert "\x1b" not in captured.out + captured.err


def test_health(clinic: str, capsys: Captured) -> None:
    assert main(["--server", clinic, "health"]) == 0
    assert capsys.readouterr().out == "SERVING\n"
    assert main(["--server", clinic, "health", "medserve.v1.PatientRisk"]) == 3
    assert capsys.readouterr().out == "NOT_SERVING\n"
    assert main(["--server", clinic, "health", "medserve.v1.Nothing"]) == 4
    assert capsys.readouterr().err == "medserve: the server has no service medserve.v1.Nothing\n"


def test_an_unreachable_server_is_an_error(capsys: Captured) -> None:
    assert main(["--server", "127.0.0.1:1", "models"]) == 3
    error = capsys.readouterr().err
    assert error.startswith("medserve: no server answers at 127.0.0.1:1 (use --server to call another one): ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["operate"],
        ["--timeout", "0", "models"],
        ["--timeout", "soon", "models"],
        ["--server", "localhost", "models"],
        ["classify"],
    ],
)
def test_an_invalid_command_line_is_rejected(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: medserve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("::1:9101", "[::1]:9101"),
        ("2001:db8::7:8001", "[2001:db8::7]:8001"),
        ("fe80::1%eth0:8001", "[fe80::1%eth0]:8001"),
        ("::1", "[::1]:PORT"),
        ("1:2:3:4:5:6:7:8", "[1:2:3:4:5:6:7:8]:PORT"),
        ("dns:///::1:9101", "dns:///[::1]:9101"),
        ("ipv6:[::1]:1,::2:9101", "ipv6:[::2]:9101"),
    ],
)
@pytest.mark.parametrize("place", ["flag", "environment", "after the command"])
def test_ipv6_address_without_brackets_is_refused_with_the_correct_form(
    address: str, meant: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    flags = ("--server", address)
    arguments = {"flag": [*flags, "health"], "environment": ["health"], "after the command": ["loadtest", *flags]}
    if place == "environment":
        monkeypatch.setenv("MEDSERVE_SERVER", address)
    with pytest.raises(SystemExit) as caught:
        main(arguments[place])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"write {meant}\n")


@pytest.mark.parametrize("address", ["[::1]", "localhost"])
def test_address_without_a_port_is_refused(address: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--server", address, "health"])
    assert caught.value.code == 2
    assert "has no port" in capsys.readouterr().err


def test_help_lists_the_exit_statuses(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "3    no response" in capsys.readouterr().out


@pytest.mark.process
def test_a_closed_pipe_causes_no_traceback(clinic: str, tmp_path: Path) -> None:
    path = tmp_path / "xray.png"
    path.write_bytes(b"four")
    script = '"$0" -m medserve_client.cli --server "$1" classify --json $(yes "$2" | head -n 5000) | head -n 1'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, clinic, path], capture_output=True, text=True, check=False
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.process
def test_on_a_terminal_risks_are_a_table(clinic: str, tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("id,age,tumor_size,grade\nA-1,40,20,I\nA-2,400,20,I\n")
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "medserve_client.cli", "--server", clinic, "risk", str(path)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(controller, 4096):
            shown += part
    except OSError:
        pass  # how Linux reports that the other end of a terminal is closed
    os.close(controller)
    _, errors = process.communicate()
    assert process.returncode == 1
    for words in ("A-1", "12.5%", "50.0%", "high", "not scored"):
        assert words in shown.decode()
    assert f"{path}:3: column age: 400 is not from 0 to 120\n" in errors
