"""An interrupt while a command still loads ends it with status 130 and not a word."""

import os
import signal
import subprocess
import sys
import tomllib

import pytest

from servers.server_process import OTHER_PORTS, REPOSITORY, environment

SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]


def started(name: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a command as the script does that pip writes for it; each module is told on standard error when loaded."""
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
def test_an_interrupt_while_loading_ends_a_command_quietly(command: tuple[str, ...], module: str) -> None:
    process = started(*command)
    assert process.stderr is not None
    for line in process.stderr:
        if line.split("|")[-1].strip() == module:
            break
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    said = [line for line in errors.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, output) == (130, "")
    assert said in ([], ["medserve-train: interrupted"])


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


def test_an_interrupt_counts_also_while_a_library_would_swallow_it() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWING, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
