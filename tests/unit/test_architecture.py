"""The packages have only the intended dependencies, and the client has few."""

import subprocess
import sys
from pathlib import Path

import pytest

from servers.server_process import REPOSITORY

MAX_MODULES = 12
"""Maximum number of modules in a folder."""


@pytest.mark.process
def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]  # it reconfigures logging
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("root", ["server", "client", "training", "tests"])
def test_no_folder_has_too_many_modules(root: str) -> None:
    modules = [path for path in (REPOSITORY / root).rglob("*.py") if "node_modules" not in path.parts]
    folders = [path.parent for path in modules if path.name not in {"__init__.py", "conftest.py"}]
    assert folders
    assert {folder for folder in folders if folders.count(folder) > MAX_MODULES} == set()


@pytest.mark.process
def test_client_import_loads_few_modules() -> None:
    code = "import medserve_client, sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = ended.stdout.split()
    assert "grpc" in modules
    unwanted = {"torch", "onnxruntime", "pandas", "rich", "pydantic", "medserve_server", "medserve_proto.inference"}
    assert not unwanted & set(modules)
