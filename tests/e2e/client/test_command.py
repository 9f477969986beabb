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


@pytest.mark.parametrize("columns", [40, 80, 120, 250])
def test_risks_and_notes_are_complete_at_any_terminal_width(target: str, tmp_path: Path, columns: int) -> None:
    path, output = tmp_path / "patients.csv", tmp_path / "risks.jsonl"
    patient = PATIENT | {"age": 95, "grade": "", "tumor_size": ""}
    path.write_text(f"id,{','.join(patient)}\nA-123456,{','.join(map(str, patient.values()))}\n")
    assert run("medserve", "--server", target, "risk", path, "-o", output).returncode == 0
    result = json.loads(output.read_text())
    shown = on_terminal(columns, "medserve", "--server", target, "risk", path)
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).split()
    notes = "; ".join(warning["message"] for warning in result["warnings"])
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
def test_ipv6_address_without_brackets_is_refused_with_the_correct_form(address: str, meant: str, place: str) -> None:
    match place:
        case "flag":
            ended = run("medserve", "--server", address, "health")
        case "environment":
            ended = run("medserve", "health", MEDSERVE_SERVER=address)
        case _:
            ended = run("medserve", "loadtest", "--server", address)
    assert ended.returncode == 2
    assert ended.stderr.endswith(f"write {meant}\n")


@pytest.mark.parametrize("address", ["[::1]", "localhost"])
def test_address_without_a_port_is_refused(address: str) -> None:
    ended = run("medserve", "--server", address, "health")
    assert (ended.returncode, "has no port" in ended.stderr) == (2, True)


NAMES = {
    "not UTF-8": (b"x-\xff.png", r"x-\xff.png"),
    "an emoji": ("x-\N{GRINNING FACE}.png".encode(), r"x-\U0001f600.png"),
    "an umlaut": ("x-ä.png".encode(), r"x-\xe4.png"),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("output", [(), ("--json",)])
@pytest.mark.parametrize("is_image", [True, False])
def test_unprintable_file_name_is_escaped(
    target: str, image_file: bytes, tmp_path: Path, kind: str, output: tuple[str, ...], is_image: bool
) -> None:
    name, escaped = NAMES[kind]
    path = bytes(tmp_path) + b"/" + name
    with open(path, "wb") as file:  # noqa: PTH123 - its name is bytes
        file.write(image_file if is_image else b"not an image")
    done = run("medserve", "--server", target, "classify", *output, path, LANG="C", PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, "Traceback" in done.stderr) == (0 if is_image else 1, False)
    if output:
        assert json.loads(done.stdout)["file"].encode("utf-8", "surrogateescape") == path
    elif is_image:
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("medserve", "cl"), {"classify"}),
        (("medserve", "risk", "--sha"), {"--shapley"}),
        (("medserve", "loadtest", "--mode", "s"), {"stream"}),
        (("medserve", "risk", "pat"), {"patients.csv"}),
        (("medserve", "classify", "pat"), {"patients.csv"}),
        (("medserve-server", "--transp"), {"--transport"}),
        (("medserve-server", "--config", "pat"), {"patients.csv"}),
        (("medserve-train", "cross"), {"crossval"}),
    ],
)
def test_bash_completes_arguments(words: tuple[str, ...], expected: set[str], tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    script = tmp_path / "completion"
    script.write_text(run(words[0], "--print-completion", "bash").stdout)
    (tmp_path / "patients.csv").touch()
    command = [program("bash", "bash"), "-c", COMPLETE, "bash", str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (set(done.stdout.split()), done.stderr) == (expected, "")


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_load_the_completion_script(name: str, shell: str, tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    script = tmp_path / "completion"
    done = run(name, "--print-completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    script.write_text(done.stdout)
    checked = subprocess.run([program(shell, shell), "-n", script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_missing_completion_extra_is_reported() -> None:
    code = "import sys; sys.modules['shtab'] = None; from medserve_client.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "--print-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install '.[completion]' in a checkout of medserve" in done.stderr
