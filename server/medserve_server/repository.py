"""The models that are served, by name and version: looked up by every request, changed while requests run."""

import difflib
import threading
from collections.abc import Iterator

from medserve_server.errors import FieldViolation, NotFound, Unavailable
from medserve_server.metrics import RequestTimer
from medserve_server.model import Model


class ModelRepository:
    """The models that are served.

    A change makes a new dictionary, so that whoever reads one sees all models before it or all after it.
    """

    def __init__(self) -> None:
        self._models: dict[str, dict[str, Model]] = {}
        self._lock = threading.Lock()  # between a request's beginning and a change
        self.ready = False
        """Every model that is to be served from the start is loaded."""

    def begin(self, name: str, version: str, api: str) -> tuple[Model, RequestTimer]:
        """Finds the model of a request and counts the request, so that the model stays open until it ends.

        Raises:
            ServingError: as `get`.
        """
        with self._lock:
            model = self.get(name, version)
            return model, model.metrics.request(api)

    def get(
        self, name: str, version: str, name_field: str = "model_name", version_field: str = "model_version"
    ) -> Model:
        """A model, to tell about it; an empty version takes the highest.

        Raises:
            Unavailable: it is not there yet; a client that knows another server asks that one.
            NotFound: naming the request's field and what there is.
        """
        models = self._models
        if not self.ready and not (name in models and version in {"", *models[name]}):
            raise Unavailable("the server is starting; its models are being loaded")
        if name not in models:
            close = difflib.get_close_matches(name[:128], models, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            found = f"is {name[:128]!r}{hint}" if name else "is empty"
            text = f"{found}; the models here are {', '.join(sorted(models)) or 'none yet'}"
            raise NotFound(f"{name_field}: {text}", [FieldViolation(name_field, text)])
        versions = models[name]
        if not version:
            return versions[max(versions, key=int)]
        if version not in versions:
            text = f"is {version[:128]!r}; {name} has {', '.join(sorted(versions, key=int))}"
            raise NotFound(f"{version_field}: {text}", [FieldViolation(version_field, text)])
        return versions[version]

    def put(self, model: Model) -> Model | None:
        """Serves a model from the next request on; gives the one whose place it took."""
        with self._lock:
            versions = self._models.get(model.name, {})
            self._models = {**self._models, model.name: {**versions, model.version: model}}
            return versions.get(model.version)

    def remove(self, name: str, version: str) -> Model:
        """Serves a model no more, from the next request on."""
        with self._lock:
            versions = dict(self._models[name])
            model = versions.pop(version)
            others = {other: models for other, models in self._models.items() if other != name}
            self._models = {**others, name: versions} if versions else others
            return model

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are served, lowest first."""
        return sorted(self._models.get(name, {}), key=int)

    def __iter__(self) -> Iterator[Model]:
        """All models by name, then by version."""
        models = self._models
        return iter([models[name][version] for name in sorted(models) for version in sorted(models[name], key=int)])

    def __len__(self) -> int:
        """Versions of all models."""
        return sum(map(len, self._models.values()))
