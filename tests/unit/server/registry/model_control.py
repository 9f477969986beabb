"""Model control over a folder, without a server around it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from medserve_server.config import Settings
from medserve_server.registry.control import ModelControl
from medserve_server.registry.registry import ModelRegistry
from medserve_server.telemetry.metrics import Metrics
from servers.model_folder import ModelFolder

BROKEN = b"no model"


class Controlled:
    """Model control over a folder, and what it serves."""

    def __init__(self, folder: ModelFolder, settings: Settings) -> None:
        self.folder = folder
        self.models = ModelRegistry()
        self.control = ModelControl(settings, self.models, Metrics())

    def served(self) -> set[tuple[str, str]]:
        return {(model.name, model.version) for model in self.models}

    def sha256(self, name: str, version: str = "") -> str:
        return self.models.get(name, version, lists_models=True).sha256

    async def index(self) -> dict[tuple[str, str], tuple[str, str]]:
        """State and reason by name and version."""
        return {(entry.name, entry.version): (entry.state, entry.reason) for entry in await self.control.index()}


@asynccontextmanager
async def controlled(folder: ModelFolder, mode: str, **others: object) -> AsyncIterator[Controlled]:
    """Control that has not started."""
    settings = Settings.model_validate({"models": folder.folder, "model_control": mode, "threads": 1, **others})
    made = Controlled(folder, settings)
    try:
        yield made
    finally:
        made.control.close()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
