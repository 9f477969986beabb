"""The .proto files: accepted by other compilers, from the repository and the wheel, and backward compatible."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from documented import blocks
from programs import environment_python, node_modules, node_program, program
from servers.server_process import REPOSITORY
from waiting import PATIENCE

pytestmark = pytest.mark.process

PROTO = REPOSITORY / "proto"
NODE = REPOSITORY / "tests/e2e/node"
PACKAGES = ("inference", "medserve")
CONTRACTS = sorted(str(path.relative_to(PROTO)) for package in PACKAGES for path in (PROTO / package).rglob("*.proto"))


def run(*command: str | Path, folder: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def from_wheel(folder: Path) -> Path:
    """Builds and unpacks the wheel; returns the folder named in docs/clients.md."""
    python = environment_python("proto")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(python, "-m", "pip", "wheel", *options, "--wheel-dir", folder, REPOSITORY, folder=folder).check_returncode()
    (wheel,) = folder.glob("*.whl")
    shutil.unpack_archive(wheel, folder / "unpacked", "zip")
    (code,) = re.findall(r'`python -c "(.+)"`', (REPOSITORY / "docs/clients.md").read_text())
    return Path(run(python, "-c", code, folder=folder / "unpacked").stdout.strip())


@pytest.fixture(params=["repository", "wheel"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A working folder as in docs/clients.md, with `proto` from the repository or the wheel."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work/proto").symlink_to(from_wheel(tmp_path) if request.param == "wheel" else PROTO)
    return tmp_path / "work"


def test_protoc_compiles_every_proto_file_with_the_documented_include_paths(reader: Path) -> None:
    python = environment_python("proto")
    (script,) = [block.text for block in blocks("docs/clients.md") if "grpc_tools.protoc" in block.text]
    ended = run("bash", "-euc", script, folder=reader, path=python.parent)
    assert (ended.returncode, ended.stderr) == (0, "")
    compiled = {str(path.relative_to(reader / "generated")) for path in reader.rglob("generated/**/*_pb2.py")}
    assert compiled == {contract.replace(".proto", "_pb2.py") for contract in CONTRACTS}


def test_node_loads_every_proto_file_with_the_documented_include_paths(reader: Path) -> None:
    node = program("node", "nodejs")
    (reader / "node_modules").symlink_to(node_modules(NODE))
    (example,) = [block.text for block in blocks("docs/clients.md") if block.title == "ask.js"]
    paths = re.findall(r"includeDirs: (\[.+\]),", example)
    assert len(paths) == 1
    script = """
        const loader = require("@grpc/proto-loader");
        for (const contract of process.argv.slice(1)) loader.loadSync(contract, { includeDirs: PATHS });
    """.replace("PATHS", paths[0])
    ended = run(node, "--eval", script, *CONTRACTS, folder=reader)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The .proto files in a buf workspace whose dependency is a local folder instead of the registry's module."""
    for package in PACKAGES:
        shutil.copytree(PROTO / package, tmp_path / package)
    google = Path(str(environment_python("proto"))).parents[1].glob("lib/python3*/site-packages/google")
    shutil.copytree(next(google), tmp_path / "googleapis/google", ignore=shutil.ignore_patterns("*.py*", "protobuf"))
    settings = yaml.safe_load((PROTO / "buf.yaml").read_text())
    assert settings.pop("deps") == ["buf.build/googleapis/googleapis"]
    settings["modules"] = [{"path": ".", "excludes": ["googleapis"]}, {"path": "googleapis"}]
    (tmp_path / "buf.yaml").write_text(json.dumps(settings))
    return tmp_path


def complaints(workspace: Path, *command: str | Path) -> list[str]:
    """Returns the rule IDs of the findings of `buf lint` or `buf breaking`."""
    options = ("--path", "medserve", "--path", "inference", "--error-format", "json")
    ended = run(node_program(NODE, "buf"), *command, *options, folder=workspace)
    assert ended.returncode in {0, 100}, ended.stderr
    return [json.loads(line)["type"] for line in ended.stdout.splitlines()]


LINT = ("lint",)
BREAKING = ("breaking", "--against", PROTO / "baseline.binpb")


def edit(workspace: Path, old: str, new: str, contract: str = "medserve/v1/image_classification.proto") -> None:
    path = workspace / contract
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_proto_files_pass_buf_lint(workspace: Path) -> None:
    assert complaints(workspace, *LINT) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("uint32 top_k = 4", "uint32 topK = 4", "FIELD_LOWER_SNAKE_CASE"),
        ("message ReasonMap", "message reason_map {}\nmessage ReasonMap", "MESSAGE_PASCAL_CASE"),
        ("KIND_RESIZED", "RESIZED", "ENUM_VALUE_PREFIX"),
        ("KIND_UNSPECIFIED", "KIND_NONE", "ENUM_ZERO_VALUE_SUFFIX"),
        ("rpc Classify(ClassifyRequest)", "rpc classify(ClassifyRequest)", "RPC_PASCAL_CASE"),
        ("google/rpc/status.proto", 'google/rpc/status.proto";\nimport "google/rpc/code.proto', "IMPORT_USED"),
    ],
)
def test_lint_violation_is_detected(workspace: Path, old: str, new: str, rule: str) -> None:
    edit(workspace, old, new)
    assert rule in complaints(workspace, *LINT)


def test_proto_files_are_compatible_with_the_baseline(workspace: Path) -> None:
    assert complaints(workspace, *BREAKING) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("  uint32 top_k = 4;\n", "", "FIELD_NO_DELETE"),
        ("uint32 top_k = 4", "uint32 top = 4", "FIELD_SAME_NAME"),
        ("uint32 top_k = 4", "string top_k = 4", "FIELD_SAME_TYPE"),
        ("repeated Image images = 3", "Image images = 3", "FIELD_SAME_CARDINALITY"),
        ("KIND_CROPPED = 2", "KIND_CROPPED = 99", "ENUM_VALUE_NO_DELETE"),
        ("(stream ClassifyRequest)", "(ClassifyRequest)", "RPC_SAME_CLIENT_STREAMING"),
        ("service ImageClassification", "service Images", "SERVICE_NO_DELETE"),
    ],
)
def test_breaking_change_is_detected(workspace: Path, old: str, new: str, rule: str) -> None:
    edit(workspace, old, new)
    assert rule in complaints(workspace, *BREAKING)


def test_change_of_the_package_is_detected(workspace: Path) -> None:
    edit(workspace, "package medserve.v1", "package medserve.v2", "medserve/v1/patient_risk.proto")
    assert "FILE_SAME_PACKAGE" in complaints(workspace, *BREAKING)


def test_new_field_is_compatible(workspace: Path) -> None:
    edit(workspace, "uint32 top_k = 4;", "uint32 top_k = 4;\n  bool new_field = 100;")
    assert complaints(workspace, *BREAKING) == []


def test_dependency_is_locked() -> None:
    dependencies = yaml.safe_load((PROTO / "buf.yaml").read_text())["deps"]
    locked = yaml.safe_load((PROTO / "buf.lock").read_text())["deps"]
    assert [one["name"] for one in locked] == dependencies
