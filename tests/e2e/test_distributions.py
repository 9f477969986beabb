"""Contents of the wheel and the source distribution, and error messages if an extra is not installed."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import grpc
import pytest

from servers.server_process import REPOSITORY
from waiting import PATIENCE

PACKAGES = {
    "medserve_client",
    "medserve_commands",
    "medserve_images",
    "medserve_masks",
    "medserve_proto",
    "medserve_server",
    "medserve_training",
}
BASE = ("google", "grpc", "numpy", "numpy.libs", "rich", "markdown_it", "mdurl", "pygments", "typing_extensions.py")
STRAY = ("patients.csv", ".env", "key.pem", "notes/patients.csv", "data/patients.csv", "models/patients/1/model.onnx")
INSTALL = "pip install '.[{0}]' in a checkout of medserve, or 'FILE.whl[{0}]' with its wheel"


def build(checkout: Path, target: str, folder: Path) -> Path:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of this checkout, and some stray ones."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a checkout")
    folder = tmp_path_factory.mktemp("checkout")
    for name in names:
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    for name in STRAY:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of a patient")
    return folder


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands' folder in an environment with the wheel and its dependencies, without any extra."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, timeout=PATIENCE)
    (packages,) = folder.glob("lib/python3*/site-packages")
    installed = Path(grpc.__file__).parents[1]
    for name in BASE:
        (packages / name).symlink_to(installed / name)
    return folder / "bin"


def run(environment: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [environment / command, *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_source_distribution_contains_only_project_files(checkout: Path, tmp_path: Path) -> None:
    with tarfile.open(build(checkout, "sdist", tmp_path)) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {name.partition("/")[0] for name in names} == {
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Dockerfile",
        "LICENSE",
        "Makefile",
        "PKG-INFO",
        "README.md",
        "README.zh.md",
        "SECURITY.md",
        "benchmarks",
        "client",
        "constraints-cuda.txt",
        "constraints.txt",
        "deploy",
        "docs",
        "mkdocs.yml",
        "models",
        "proto",
        "pyproject.toml",
        "server",
        "tests",
        "training",
    }
    assert not {*names} & {*STRAY}
    assert "models/chest-xray/1/model.onnx" in names


def test_wheel_contains_only_packages(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    folders = {name.partition("/")[0] for name in names}
    static = ("index.html", "style.css", "views/models.js", "views/image/view.js", "views/patient/style.css")
    assert {f"medserve_server/web/static/{name}" for name in static} <= names
    assert {name for name in folders if not name.endswith(".dist-info")} == PACKAGES


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--log-format", "json")])
def test_server_without_its_extra_prints_one_line(environment: Path, arguments: tuple[str, ...]) -> None:
    for command in (("medserve-server", *arguments), ("python", "-m", "medserve_server", *arguments)):
        result = run(environment, *command)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("medserve-server: needs the extra server (not installed: onnxruntime, ")
        assert INSTALL.format("server") in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("--help",), ("fit", "digits")])
def test_training_without_its_extra_prints_one_line(environment: Path, arguments: tuple[str, ...]) -> None:
    for command in (("medserve-train", *arguments), ("python", "-m", "medserve_training", *arguments)):
        result = run(environment, *command)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("medserve-train: needs the extra training (not installed: ")
        assert INSTALL.format("training") in result.stderr
        assert result.stderr.count("\n") == 1


def test_plots_without_their_extra_print_one_line(environment: Path, tmp_path: Path) -> None:
    result = run(environment, "medserve", "loadtest", "--plot", str(tmp_path / "plot.png"))
    assert result.returncode == 2
    assert result.stderr == f"medserve: --plot needs the extra loadtest: {INSTALL.format('loadtest')}\n"


def test_client_needs_no_extra(environment: Path) -> None:
    result = run(environment, "medserve", "--server", "127.0.0.1:1", "models")
    assert result.returncode == 3
    assert "no server answers at 127.0.0.1:1" in result.stderr


def test_messages_about_extras_have_the_same_wording() -> None:
    """The messages do not suggest installing from PyPI, where medserve is not published."""
    found = set()
    for package in ("server", "client", "training", "proto"):
        for path in (REPOSITORY / package).rglob("*.py"):
            code = re.sub(r'"\s*\n\s*f?"', "", path.read_text())
            assert "medserve[" not in code, path
            for extra in re.findall(r"pip install '\.\[(\w+)\]'", code):
                assert INSTALL.format(extra) in code, path
                found.add(extra)
    assert found == {
        "completion",
        "cuda",
        "dicom",
        "envoy",
        "loadtest",
        "otel",
        "segmentation",
        "server",
        "signing",
        "training",
    }
