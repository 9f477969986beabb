"""The container image as run in production: read-only, without capabilities, called through the client.

If no container engine runs or the base image is unavailable, these tests are skipped.
"""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medserve_client import Client, FeatureValue, HealthStatus, InferenceError
from medserve_proto.v1.manifest_pb2 import Manifest

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).resolve().parents[2]
BASE_IMAGE = next(
    line.removeprefix("ARG BASE_IMAGE=")
    for line in (REPOSITORY / "Dockerfile").read_text().splitlines()
    if line.startswith("ARG BASE_IMAGE=")
)
LOCKED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
HARDENED = [*LOCKED, "--tmpfs=/tmp"]
GRACE = 20  # seconds from SIGTERM to SIGKILL

# Runs inside the image, with the image's Python.
LOOK_AROUND = """
import importlib.util, json, os, shutil
modules = ["torch", "pandas", "medserve_training", "pip", "setuptools", "ensurepip", "grpc", "onnxruntime"]
programs = ["pip", "pip3", "gcc", "cc", "g++", "clang", "ld", "as", "make", "medserve"]
print(json.dumps({
    "user": os.getuid(),
    "modules": [name for name in modules if importlib.util.find_spec(name)],
    "programs": [name for name in programs if shutil.which(name)],
}))
"""


@dataclass(frozen=True)
class Engine:
    """The command podman or docker."""

    command: str

    def run(self, *arguments: str, check: bool = True, limit: float = 60) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [self.command, *arguments], capture_output=True, text=True, timeout=limit, check=False, cwd=REPOSITORY
        )
        if check and result.returncode != 0:
            pytest.fail(f"{self.command} {' '.join(arguments)}: {result.stdout[-4000:]}{result.stderr[-4000:]}")
        return result

    def works(self) -> bool:
        if shutil.which(self.command) is None or self.run("info", check=False).returncode != 0:
            return False
        has_base = self.run("image", "inspect", BASE_IMAGE, check=False).returncode == 0
        return has_base or self.run("pull", BASE_IMAGE, check=False, limit=300).returncode == 0


@dataclass(frozen=True)
class Container:
    """A container that serves."""

    engine: Engine
    name: str
    target: str

    def inspect(self, what: str) -> str:
        return self.engine.run("inspect", "--format", f"{{{{{what}}}}}", self.name).stdout.strip()

    def logs(self) -> str:
        result = self.engine.run("logs", self.name)
        return result.stdout + result.stderr


@pytest.fixture(scope="module")
def engine() -> Engine:
    for command in ("podman", "docker"):
        if (found := Engine(command)).works():
            return found
    pytest.skip(f"needs podman or docker, running, and able to get {BASE_IMAGE}; then: pytest -m container")


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The image of this checkout."""
    name = "localhost/medserve:test"
    arguments = ["build", "--tag", name, "--build-arg", f"VERSION={version('medserve')}", "--target", "cpu"]
    if engine.command == "podman":
        # podman's default format has no health check; the build uses this machine's network settings to fetch packages.
        arguments += ["--format", "docker", "--network", "host", "--pull=never"]
    engine.run(*arguments, ".", limit=800)
    return name


@contextlib.contextmanager
def running(engine: Engine, image: str, *options: str) -> Iterator[Container]:
    """Starts a container and waits for its health; removes it at the end."""
    port, metrics_port = free_port(), free_port()
    container = Container(engine, f"medserve-test-{os.getpid()}-{port}", f"127.0.0.1:{port}")
    # The same port inside and outside, since the engine may publish ports or share the host's network.
    network = [
        f"--publish=127.0.0.1:{port}:{port}",
        f"--env=MEDSERVE_PORT={port}",
        f"--env=MEDSERVE_METRICS_PORT={metrics_port}",
        f"--env=MEDSERVE_SERVER=127.0.0.1:{port}",
    ]
    engine.run("run", "--detach", f"--name={container.name}", *HARDENED, *network, *options, image)
    try:
        wait_until_serving(container)
        yield container
    finally:
        engine.run("rm", "--force", container.name, check=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until_serving(container: Container, limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    with Client(container.target, timeout=2) as client:
        while True:
            with contextlib.suppress(InferenceError):
                if client.health() is HealthStatus.SERVING:
                    return
            if time.monotonic() > deadline or container.inspect(".State.Running") != "true":
                pytest.fail(f"the container does not serve:\n{container.logs()}")
            time.sleep(0.1)


@pytest.fixture(scope="module")
def container(engine: Engine, image: str) -> Iterator[Container]:
    with running(engine, image) as started:
        yield started


@pytest.fixture
def client(container: Container) -> Iterator[Client]:
    with Client(container.target) as connected:
        yield connected


def typical_patient(manifest: Manifest) -> dict[str, FeatureValue]:
    """Returns a typical patient of the training data."""
    return {
        feature.name: feature.categorical.names[0]
        if feature.HasField("categorical")
        else round((feature.numeric.training_min + feature.numeric.training_max) / 2)
        for feature in manifest.patient_risk.features
    }


def test_image_is_small(engine: Engine, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = int(engine.run("image", "inspect", "--format", "{{.Size}}", image).stdout) / 1e6
    base = int(engine.run("image", "inspect", "--format", "{{.Size}}", BASE_IMAGE).stdout) / 1e6
    with capsys.disabled():
        print(f"\nimage: {size:.0f} MB, of which the base image {base:.0f} MB")  # noqa: T201 - for the README
    assert size - base < 320


def test_classifies_images(client: Client) -> None:
    """In every format, since the image omits parts of Pillow."""
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))
    formats: list[dict[str, str]] = [{"format": "PNG"}, {"format": "JPEG"}]
    formats += [{"format": "TIFF", "compression": each} for each in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "zstd")]
    files = []
    for options in formats:
        file = io.BytesIO()
        pixels.save(file, **options)
        files.append(file.getvalue())
    labels = set(client.describe("chest-xray").manifest.image_classification.labels)
    results = client.classify(files, model="chest-xray").results
    assert len(results) == len(files)
    for result in results:
        assert {label.label for label in result.labels} == labels
        assert sum(label.probability for label in result.labels) == pytest.approx(1, abs=1e-5)


def test_serves_through_envoy(container: Container) -> None:
    assert "serves   by envoy" in container.logs()


@pytest.mark.parametrize("user", ["65532:65532", "1234567:0"])
def test_any_user_serves_grpc_and_rest_on_one_port(engine: Engine, image: str, user: str) -> None:
    """Without capabilities, and with only /tmp writable."""
    with running(engine, image, f"--user={user}") as started, Client(started.target) as client:
        grpc = {model.name for model in client.models()}
        with urllib.request.urlopen(f"http://{started.target}/v1/models", timeout=30) as response:
            rest = {model["name"] for model in json.load(response)["models"]}
        assert grpc == rest
        assert {"chest-xray", "breast-cancer-risk"} <= rest
        assert stray_files(started) == []


def stray_files(container: Container) -> list[str]:
    """Paths in /dev/shm, and in /tmp outside of private folders."""
    find = "import glob; print(*glob.glob('/dev/shm/*'), *glob.glob('/tmp/[!m]*'))"
    return container.engine.run("exec", container.name, "python3", "-c", find).stdout.split()


def test_missing_writable_tmp_is_reported(engine: Engine, image: str) -> None:
    # podman mounts one by default
    nowhere = ["--read-only-tmpfs=false"] if engine.command == "podman" else []
    ended = engine.run("run", "--rm", *LOCKED, *nowhere, image, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("medserve-server: none of /tmp")
    assert "--tmpfs /tmp" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_predicts_the_risk_of_a_patient(client: Client) -> None:
    patient = typical_patient(client.describe("breast-cancer-risk").manifest)
    (result,) = client.predict_risk(patient, model="breast-cancer-risk").results
    assert result.risks
    assert all(0 < risk.risk < 1 for risk in result.risks)


def test_contains_only_what_serving_needs(engine: Engine, image: str) -> None:
    run = ["run", "--rm", *HARDENED]
    found = json.loads(engine.run(*run, "--entrypoint=python3", image, "-c", LOOK_AROUND).stdout)
    assert found == {"user": 65532, "modules": ["grpc", "onnxruntime"], "programs": ["medserve"]}
    # The Python of the base image, on which the virtual environment is based.
    bare = ["--env=PATH=/usr/local/bin:/usr/bin:/bin", "--entrypoint=python3"]
    found = json.loads(engine.run(*run, *bare, image, "-c", LOOK_AROUND).stdout)
    assert found == {"user": 65532, "modules": [], "programs": []}


def test_labels_name_the_version(engine: Engine, image: str) -> None:
    labels = json.loads(engine.run("image", "inspect", "--format", "{{json .Config.Labels}}", image).stdout)
    assert labels["org.opencontainers.image.title"] == "medserve"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    # Also without --build-arg.
    assert f"ARG VERSION={version('medserve')}\n" in (REPOSITORY / "Dockerfile").read_text()


def test_health_check(engine: Engine, image: str, container: Container) -> None:
    if engine.command == "podman":
        # The health check timer may not be running.
        engine.run("healthcheck", "run", container.name)
    else:
        deadline = time.monotonic() + 60
        while container.inspect(".State.Health.Status") != "healthy":
            assert time.monotonic() < deadline
            time.sleep(1)
    unreachable = ["--env=MEDSERVE_SERVER=127.0.0.1:1", "--entrypoint=medserve"]
    assert engine.run("run", "--rm", *HARDENED, *unreachable, image, "health", check=False).returncode != 0


def test_onnx_runtime_telemetry_is_disabled(container: Container) -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in json.loads(container.inspect("json .Config.Env"))
    assert "telemetry" not in container.logs()


def test_traces_can_be_enabled(engine: Engine, image: str) -> None:
    """The exporter is installed; whether it exports is tested without the image."""
    with running(engine, image, "--env=MEDSERVE_OTLP_ENDPOINT=http://127.0.0.1:1") as container:
        assert "OpenTelemetry" not in container.logs()


def test_sigterm_stops_the_container_in_time(engine: Engine, image: str) -> None:
    with running(engine, image) as container:
        started = time.monotonic()
        engine.run("stop", f"--time={GRACE}", container.name)
        assert time.monotonic() - started < GRACE / 2
        assert container.inspect(".State.ExitCode") == "0"
        assert "all calls were answered" in container.logs()


def test_mounted_models_replace_the_embedded_ones(engine: Engine, image: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(REPOSITORY / "models/chest-xray/1", models / "chest-xray/7")
    with running(engine, image, f"--volume={models}:/models:ro,Z") as container, Client(container.target) as client:
        assert [(model.name, model.version) for model in client.models()] == [("chest-xray", "7")]
