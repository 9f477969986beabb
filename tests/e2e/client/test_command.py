"""Basic use of the `medserve` command with the real server."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medserve_command import MODULES, on_terminal, run
from programs import program
from samples.patient import PATIENT
from servers.server_process import ServerProcess

PATIENTS = ",".join(PATIENT) + "\n" + ",".join(map(str, PATIENT.values())) + "\n"


@pytest.fixture(scope="session")
def transport() -> str:
    """One transport suffices, since these tests are about the command."""
    return "grpcio"


@pytest.fixture
def target(server: ServerProcess) -> str:
    return server.target


def test_metrics_are_shown_on_request_with_their_subgroup(target: str) -> None:
    def titles(*flags: str) -> list[str]:
        shown = run("medserve", "--server", target, "describe", "breast-cancer-risk", *flags)
        assert shown.returncode == 0
        return [title.rstrip() for title in re.findall(r"^Metrics.*$", shown.stdout, re.MULTILINE)]

    *without, hint = titles()
    everything = titles("--all")
    assert len(set(everything)) == len(everything) > len(without) > 0
    assert set(without) <= set(everything)
    assert "Metrics, test, grade II (71)" in everything
    assert not any("grade" in title for title in without)
    assert hint == f"Metrics of {len(everything) - len(without)} subgroups: medserve describe --all"


def test_patients_are_read_from_standard_input(target: str, tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text(PATIENTS)
    piped = run("medserve", "--server", target, "risk", "-", stdin=PATIENTS.encode())
    assert piped.returncode == 0
    assert len(list(csv.DictReader(piped.stdout.splitlines()))) == 1
    assert piped.stdout == run("medserve", "--server", target, "risk", path).stdout
    wrong = run("medserve", "--server", target, "risk", "-", stdin=PATIENTS.encode() + b"1\n")
    assert wrong.returncode == 1
    assert f"-:3: 1 cells, but the header has {len(PATIENT)}\n" in wrong.stderr


def test_risks_and_notes_are_complete_at_any_terminal_width(target: str, tmp_path: Path) -> None:
    path, output = tmp_path / "patients.csv", tmp_path / "risks.jsonl"
    patient = PATIENT | {"age": 95, "grade": "", "tumor_size": ""}
    path.write_text(f"id,{','.join(patient)}\nA-123456,{','.join(map(str, patient.values()))}\n")
    assert run("medserve", "--server", target, "risk", path, "-o", output).returncode == 0
    result = json.loads(output.read_text())
    notes = "; ".join(warning["message"] for warning in result["warnings"])
    for columns in (40, 80, 250):
        shown = on_terminal(columns, "medserve", "--server", target, "risk", path)
        words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).split()
        assert f"Line 2, A-123456: {notes}" in " ".join(words)
        assert {f"{risk['risk']:.1%}" for risk in result["risks"]} <= set(words)


@pytest.mark.parametrize("command", ["classify", "risk"])
def test_closed_standard_input_is_reported(target: str, command: str) -> None:
    script = '"$0" -m medserve_client.cli --server "$1" "$2" - <&-'
    ended = subprocess.run(
        ["sh", "-c", script, sys.executable, target, command], capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert "-: cannot be read: Bad file descriptor" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_invalid_address_in_the_environment_is_refused() -> None:
    ended = run("medserve", "health", MEDSERVE_SERVER="::1:9101")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith("write [::1]:9101\n")


NAMES = {
    b"x-\xff.png": r"x-\xff.png",
    "x-\N{GRINNING FACE}.png".encode(): r"x-\U0001f600.png",
    "x-ä.png".encode(): r"x-\xe4.png",
}
"""File names that are not UTF-8 or not printable in ASCII, and how they are shown."""


@pytest.mark.parametrize("output", [(), ("--json",)])
@pytest.mark.parametrize("is_image", [True, False])
def test_unprintable_file_names_are_escaped(
    target: str, image_file: bytes, tmp_path: Path, output: tuple[str, ...], is_image: bool
) -> None:
    paths = [bytes(tmp_path) + b"/" + name for name in NAMES]
    for path in paths:
        with open(path, "wb") as file:  # noqa: PTH123 - its name is bytes
            file.write(image_file if is_image else b"not an image")
    done = run("medserve", "--server", target, "classify", *output, *paths, LANG="C", PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, "Traceback" in done.stderr) == (0 if is_image else 1, False)
    if output:
        shown = [json.loads(line)["file"].encode("utf-8", "surrogateescape") for line in done.stdout.splitlines()]
        assert shown == paths
    for escaped in NAMES.values():
        if is_image and not output:
            assert f"{tmp_path}/{escaped}" in done.stdout
        if not is_image:
            assert f"{tmp_path}/{escaped}: " in done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_commands_print_their_versions(name: str) -> None:
    done = run(name, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert {"medserve", "grpcio", "ONNX Runtime", "Python"} <= set(found)
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(re.fullmatch(r"\d+\.\d+\S*", version) for version in found.values())


COMPLETE = """
source "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2)) COMP_LINE="${*:2}" COMP_POINT=${#COMP_LINE}
$(complete -p "$2" | sed 's/.*-F \\([^ ]*\\).*/\\1/') "$2" "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


COMPLETED: dict[str, dict[tuple[str, ...], set[str]]] = {
    "medserve": {
        ("cl",): {"classify"},
        ("risk", "--sha"): {"--shapley"},
        ("loadtest", "--mode", "s"): {"stream"},
        ("risk", "pat"): {"patients.csv"},
        ("classify", "pat"): {"patients.csv"},
    },
    "medserve-server": {("--transp",): {"--transport"}, ("--config", "pat"): {"patients.csv"}},
    "medserve-train": {("cross",): {"crossval"}},
}
"""What bash completes, by command and the words after it."""


@pytest.mark.parametrize("name", MODULES)
def test_shells_load_the_completion_script_and_bash_completes_arguments(name: str, tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    for shell in ("zsh", "fish", "bash"):
        script = tmp_path / f"completion.{shell}"
        done = run(name, "--print-completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        script.write_text(done.stdout)
        checked = subprocess.run([program(shell, shell), "-n", script], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
    (tmp_path / "patients.csv").touch()
    for words, expected in COMPLETED[name].items():
        command = [program("bash", "bash"), "-c", COMPLETE, "bash", str(script), name, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (set(done.stdout.split()), done.stderr) == (expected, "")


def test_missing_completion_extra_is_reported() -> None:
    code = "import sys; sys.modules['shtab'] = None; from medserve_client.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "--print-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install '.[completion]' in a checkout of medserve" in done.stderr
