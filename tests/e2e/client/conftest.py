"""The real server, with the real models, for the tests of the client."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def target() -> Iterator[str]:
    """Starts the server on free ports, and gives host:port."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDSERVE_")}
    command = [sys.executable, "-m", "medserve_server", "--port", "0", "--metrics-port", "0"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            # It tells its address once every model is ready.
            yield next(line.split()[1] for line in process.stdout if line.startswith("gRPC "))
        finally:
            process.terminate()
    assert process.returncode == 0
