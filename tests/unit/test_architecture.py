"""The packages depend on each other as the design says, and the client on little."""

import subprocess
import sys

import pytest
from importlinter.cli import lint_imports

from server_process import REPOSITORY


def test_the_import_contracts_hold() -> None:
    assert lint_imports(config_filename=str(REPOSITORY / "pyproject.toml"), cache_dir=None) == 0


@pytest.mark.process
def test_a_program_that_imports_the_client_gets_little() -> None:
    code = "import medserve_client, sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = ended.stdout.split()
    assert "grpc" in modules
    unwanted = {"torch", "onnxruntime", "pandas", "rich", "pydantic", "medserve_server", "medserve_proto.inference"}
    assert not unwanted & set(modules)
