"""An interrupt during a command's imports ends it with status 130 and without a traceback."""

import os
import signal
import subprocess
import sys
import tomllib

import pytest

from servers.server_process import OTHER_PORTS, REPOSITORY, environment

SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]


def started(name: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a command like pip's entry-point script; imported modules are listed on standard error."""
    module, _, function = SCRIPTS[name].partition(":")
    script = f"import sys; from {module} import {function}; sys.argv[0] = {name!r}; sys.exit({function}())"
    return subprocess.Popen(
        [sys.executable, "-X", "importtime", "-c", script, *arguments],
        env=environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


SERVER = ("medserve-server", "--port", "0", *OTHER_PORTS, "--transport")


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (("medserve", "models"), "numpy"),
        (("medserve", "models"), "grpc"),
        (("medserve", "models"), "medserve_client.cli.command"),
        ((*SERVER, "grpcio"), "pydantic"),
        ((*SERVER, "grpcio"), "medserve_server.process.cli"),
        ((*SERVER, "grpcio"), "onnxruntime"),
        ((*SERVER, "envoy"), "medserve_server.process.workers"),
        (("medserve-train", "fit", "digits"), "medserve_training.recipes.recipe"),
        (("medserve-train", "fit", "digits"), "torch"),
    ],
    ids=lambda one: one if isinstance(one, str) else one[0],
)
def test_interrupt_during_imports_ends_a_command_without_traceback(command: tuple[str, ...], module: str) -> None:
    process = started(*command)
    assert process.stderr is not None
    for line in process.stderr:
        if line.split("|")[-1].strip() == module:
            break
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    messages = [line for line in errors.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, output) == (130, "")
    assert messages in ([], ["medserve-train: interrupted"])


SWALLOWING = """
import signal, sys

class Swallowing:
    def find_spec(self, name, *_):
        if name == "grpc":
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException:
                pass

sys.meta_path.insert(0, Swallowing())
from medserve_commands import medserve
sys.exit(medserve())
"""


def test_interrupt_is_not_swallowed_by_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWING, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
