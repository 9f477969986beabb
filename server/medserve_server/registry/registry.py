"""The registry of served models by name and version; may be changed while requests are running."""

import difflib
import threading
from collections.abc import Iterator, Mapping

from medserve_server.engine.model import Model
from medserve_server.errors import FieldViolation, NotFound, Unavailable, listing
from medserve_server.telemetry.metrics import RequestTimer

NOT_LISTED = "; no such model or version is served, and listing them requires a token with the scope metadata"
MAX_COMPARED = 100
"""With more models than this, no similar name is suggested: comparing takes up to half a millisecond per name."""


class ModelRegistry:
    """The served models.

    Every change replaces the dictionary, so that readers see a consistent state without locking.
    """

    def __init__(self) -> None:
        self._models: dict[str, dict[str, Model]] = {}  # by name, then by version, the highest last
        self._lock = threading.Lock()  # serializes changes and the start of requests
        self.ready = False
        """Whether all models that are served from startup have been loaded."""

    def begin(self, name: str, version: str, api: str, *, lists_models: bool) -> tuple[Model, RequestTimer]:
        """Looks up the model of a request and counts the request, so that the model stays open until it ends.

        Raises:
            ServingError: as `get`.
        """
        with self._lock:
            model = self.get(name, version, lists_models=lists_models)
            return model, model.metrics.request(api)

    def get(
        self,
        name: str,
        version: str,
        name_field: str = "model_name",
        version_field: str = "model_version",
        *,
        lists_models: bool,
    ) -> Model:
        """Looks up a model without starting a request.

        Args:
            name: name of the model.
            version: version of the model; empty for the highest.
            name_field: request field with the name, for the error.
            version_field: request field with the version, for the error.
            lists_models: whether the caller may learn which models and versions are served.

        Raises:
            Unavailable: the server is starting and has not loaded the model yet; clients may retry on another server.
            NotFound: there is no such model or version; the message names the field and, if the caller may list them,
                the models or versions that are served.
        """
        models = self._models
        if not self.ready and not (name in models and version in {"", *models[name]}):
            raise Unavailable("the server is starting; its models are being loaded")
        if name not in models:
            raise _not_found(name_field, name, _models_text(name, models) if lists_models else NOT_LISTED)
        versions = models[name]
        if not version:
            return next(reversed(versions.values()))
        if version not in versions:
            known = f"; the versions of {name} are {listing(sorted(versions, key=int))}"
            raise _not_found(version_field, version, known if lists_models else NOT_LISTED)
        return versions[version]

    def put(self, model: Model) -> Model | None:
        """Adds a model, which is served from the next request on; returns the model that it replaces, if any."""
        with self._lock:
            versions = self._models.get(model.name, {})
            changed = sorted({**versions, model.version: model}.items(), key=lambda item: int(item[0]))
            self._models = {**self._models, model.name: dict(changed)}
            return versions.get(model.version)

    def remove(self, name: str, version: str) -> Model:
        """Removes and returns a model, which is not served from the next request on."""
        with self._lock:
            versions = dict(self._models[name])
            model = versions.pop(version)
            others = {other: models for other, models in self._models.items() if other != name}
            self._models = {**others, name: versions} if versions else others
            return model

    def versions(self, name: str) -> list[str]:
        """Returns the served versions of a model, lowest first."""
        return sorted(self._models.get(name, {}), key=int)

    def __iter__(self) -> Iterator[Model]:
        """Iterates over all models, ordered by name, then by version."""
        models = self._models
        return iter([models[name][version] for name in sorted(models) for version in sorted(models[name], key=int)])

    def __len__(self) -> int:
        """Returns the number of served versions of all models."""
        return sum(map(len, self._models.values()))


def _not_found(field: str, given: str, known: str) -> NotFound:
    text = f"is {given[:128]!r}{known}" if given else f"is empty{known}"
    return NotFound(f"{field}: {text}", [FieldViolation(field, text)])


def _models_text(name: str, models: Mapping[str, object]) -> str:
    """Lists the served models, and suggests the one with the most similar name."""
    close = difflib.get_close_matches(name[:128], models, n=1) if len(models) <= MAX_COMPARED else []
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{hint}; the served models are {listing(sorted(models))}" if models else "; no models are served yet"
