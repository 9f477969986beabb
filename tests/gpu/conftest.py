"""Servers on each execution provider, for tests on an NVIDIA GPU: make test-gpu (docs/operations.md).

MEDSERVE_GPU_TEST_PROVIDERS=cpu runs the same tests on the CPU without ResNet-50, to check the tests themselves.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gpu import networks
from gpu.answers import CLASSIFIERS, Expected
from gpu.device import PROVIDERS, missing
from gpu.figures import FIGURES, Figure, report
from medserve_server.engine.providers import Provider
from samples import onnx_models
from servers.server_process import REPOSITORY, ServerProcess, running_server

# TensorRT builds an engine for each new batch size, which is slow for a large network; more rows are run in parts.
MAX_BATCH_ROWS = {"tensorrt": 8}

Serve = Callable[..., ServerProcess]
"""Type of the fixture `serve`: serves some of the models on the provider, with flags, until the test ends."""


@pytest.fixture(scope="session", params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    """The provider under test; skips with the reason if it is unavailable."""
    name: Provider = request.param
    if reason := missing(name):
        pytest.skip(reason)
    return name


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model of these tests, in one repository."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("chest-xray", "breast-cancer-risk"):
        shutil.copytree(REPOSITORY / "models" / name, folder / name)
    onnx_models.save(folder, "article-cnn", networks.article_cnn())
    if "resnet-50" in CLASSIFIERS:
        onnx_models.save(folder, "resnet-50", networks.resnet_50())
    onnx_models.save(folder, "free-size", networks.free_size())
    onnx_models.save(folder, "square", networks.square())
    return folder


@pytest.fixture(scope="session")
def expected(models: Path) -> Expected:
    """Results of ONNX Runtime alone on the CPU."""
    return Expected(models)


@contextmanager
def serving(models: Path, provider: Provider, *flags: str, log: Path | None = None) -> Iterator[ServerProcess]:
    rows = str(MAX_BATCH_ROWS.get(provider, 64))
    common = ("--models", str(models), "--model-control", "explicit", "--provider", provider)
    limits = ("--max-batch-rows", rows, "--max-run-seconds", "600")  # a large network on a slow machine
    with running_server(*common, *limits, *flags, log=log) as server:
        yield server


@pytest.fixture
def serve(models: Path, provider: Provider, tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(names: tuple[str, ...], *flags: str) -> ServerProcess:
            load = [flag for name in names for flag in ("--load-model", name)]
            return stack.enter_context(serving(models, provider, *load, *flags, log=tmp_path / "log"))

        yield start


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> list[Figure]:
    """Measurements, printed and written at the end."""
    return request.config.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if found := config.stash.get(FIGURES, []):
        terminalreporter.section("throughput and latency")
        terminalreporter.write(report(found, config.rootpath / "build"))
