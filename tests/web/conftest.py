"""A browser for each module: while Playwright runs, the thread has an event loop, which would disturb other tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from samples import onnx_models
from servers.server_process import REPOSITORY, ServerProcess, running_server

if TYPE_CHECKING:
    from web.browser import Browser, Open


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from web.browser import chromium  # noqa: PLC0415 - skips the test if the package is missing

    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    from web.browser import opened  # noqa: PLC0415

    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(opened(browser, *args, **options))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the repository, and one without a manifest."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("chest-xray", "breast-cancer-risk"):
        shutil.copytree(REPOSITORY / "models" / name, folder / name)
    onnx_models.save(folder, "two-inputs", onnx_models.two_inputs())
    return folder


@pytest.fixture(scope="module")
def site(models: Path) -> Iterator[ServerProcess]:
    """Serves these models on loopback, where the page is on by default."""
    with running_server("--models", str(models), "--transport", "grpcio") as started:
        yield started
