"""The model repository: a folder of <name>/<version>/model.onnx, and the models loaded from it."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from medserve_server.config import Settings
from medserve_server.errors import FieldViolation, ModelLoadError, NotFound
from medserve_server.metrics import Metrics
from medserve_server.model import Model

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")


class ModelRepository:
    """The models that are served, by name and version."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, Model]] = {}
        self.ready = False
        """Every configured model is loaded."""

    def load(self, settings: Settings, metrics: Metrics) -> None:
        """Loads every model in the folder.

        Raises:
            ModelLoadError: the folder is missing or empty, or a file in it can't be served.
        """
        for name, version, path in find_models(settings.models):
            self.add(Model(name, version, path, settings, metrics))
        self.ready = True

    def add(self, model: Model) -> None:
        """Serves a model."""
        self._models.setdefault(model.name, {})[model.version] = model

    def get(
        self, name: str, version: str, name_field: str = "model_name", version_field: str = "model_version"
    ) -> Model:
        """The model of a request; an empty version takes the highest.

        Raises:
            NotFound: naming the request's field and what there is.
        """
        if name not in self._models:
            close = difflib.get_close_matches(name[:128], self._models, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            found = f"is {name[:128]!r}{hint}" if name else "is empty"
            text = f"{found}; the models here are {', '.join(sorted(self._models)) or 'none yet'}"
            raise NotFound(f"{name_field}: {text}", [FieldViolation(name_field, text)])
        versions = self._models[name]
        if not version:
            return versions[max(versions, key=int)]
        if version not in versions:
            text = f"is {version[:128]!r}; {name} has {', '.join(self.versions(name))}"
            raise NotFound(f"{version_field}: {text}", [FieldViolation(version_field, text)])
        return versions[version]

    def versions(self, name: str) -> list[str]:
        """The versions of a model that is served, lowest first."""
        return sorted(self._models[name], key=int)

    def __iter__(self) -> Iterator[Model]:
        """All models by name, then by version."""
        return iter([self._models[name][version] for name in sorted(self._models) for version in self.versions(name)])


def find_models(folder: Path) -> list[tuple[str, str, Path]]:
    """Lists name, version and file of every model in a repository.

    Raises:
        ModelLoadError: it is no folder, holds no model, or holds a name or version that can't be served.
    """
    if not folder.is_dir():
        raise ModelLoadError(f"--models {folder}: there is no such folder")
    found = []
    for path in sorted(folder.glob("*/*/model.onnx")):
        name, version = path.parts[-3:-1]
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelLoadError(f"{path}: it is a link that leaves the repository")
        if not NAME.fullmatch(name):
            raise ModelLoadError(f"{path}: {name!r} is no name of a model; use letters, digits, '.', '_' and '-'")
        if not VERSION.fullmatch(version):
            raise ModelLoadError(f"{path}: {version!r} is no version; use a whole number from 1")
        found.append((name, version, path))
    if not found:
        raise ModelLoadError(f"--models {folder}: it holds no <name>/<version>/model.onnx")
    return found
