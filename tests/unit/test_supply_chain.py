"""The image's locks: exactly what the extras need, in the versions that CI runs, each file with its checksum."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
LOCKED = re.compile(r"([A-Za-z0-9._-]+)==(\S+)(?: ; [^\\]+)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")
EXTRAS = ("server", "envoy", "dicom", "otel")


def lock(kind: str) -> dict[str, str]:
    """Versions by name, of a file in which there is nothing else."""
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
    """Names of all that is needed on this machine: by requirements, and by what they need."""
    found: set[str] = set()
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": one}) for one in extras | {""}):
            found.add(canonicalize_name(requirement.name))
            found |= needed(distribution(requirement.name).requires or [], requirement.extras)
    return found


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_lock_has_the_versions_that_ci_runs(kind: str) -> None:
    pins = constraints()
    assert lock(kind) == {name: pins[name] for name in lock(kind)}


def test_the_lock_has_exactly_what_the_extras_need() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    of_extras = [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    assert set(lock("cpu")) == needed([*project["dependencies"], *of_extras], set())


def test_the_lock_for_cuda_differs_in_the_runtime_alone() -> None:
    added = set(lock("cuda")) - set(lock("cpu"))
    assert "onnxruntime-gpu" in added
    assert all(name == "onnxruntime-gpu" or name.startswith("nvidia-") for name in added)
    assert set(lock("cpu")) - set(lock("cuda")) == {"onnxruntime"}


def test_the_lock_of_the_build_has_the_backend() -> None:
    assert "hatchling" in lock("build")


def test_the_image_installs_from_locks_alone() -> None:
    installs = re.findall(r"pip (?:install|wheel) (.*)", (REPOSITORY / "Dockerfile").read_text())
    assert len(installs) == 6
    for options in installs:
        locked = re.match(r"--require-hashes -r requirements-(cpu|cuda|build)\.txt", options)
        assert locked or options.startswith(("--no-deps --no-index", "--no-deps --no-build-isolation"))
