"""The models that are served, by name and version: looked up by every request, changed while requests run."""

import difflib
import threading
from collections.abc import Iterator, Mapping

from medserve_server.engine.model import Model
from medserve_server.errors import FieldViolation, NotFound, Unavailable, listing
from medserve_server.telemetry.metrics import RequestTimer

NOT_LISTED = "; there is no such model or version here, and listing them needs a token with the scope metadata"
MAX_COMPARED = 100
"""Models whose names are compared with one that is not known: comparing takes up to half a millisecond a name."""


class ModelRegistry:
    """The models that are served.

    A change makes a new dictionary, so that whoever reads one sees all models before it or all after it.
    """

    def __init__(self) -> None:
        self._models: dict[str, dict[str, Model]] = {}  # by name, then by version, the highest last
        self._lock = threading.Lock()  # between a request's beginning and a change
        self.ready = False
        """Every model that is to be served from the start is loaded."""

    def begin(self, name: str, version: str, api: str, *, lists_models: bool) -> tuple[Model, RequestTimer]:
        """Finds the model of a request and counts the request, so that the model stays open until it ends.

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
        """A model, to tell about it; an empty version takes the highest.

        Args:
            name: of the model.
            version: empty for the highest.
            name_field: of the request, for the error.
            version_field: of the request, for the error.
            lists_models: whether the caller may learn which models and versions there are.

        Raises:
            Unavailable: it is not there yet; a client that knows another server asks that one.
            NotFound: naming the request's field, and what there is to a caller who may list that.
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
            known = f"; {name} has {listing(sorted(versions, key=int))}"
            raise _not_found(version_field, version, known if lists_models else NOT_LISTED)
        return versions[version]

    def put(self, model: Model) -> Model | None:
        """Serves a model from the next request on; gives the one whose place it took."""
        with self._lock:
            versions = self._models.get(model.name, {})
            changed = sorted({**versions, model.version: model}.items(), key=lambda item: int(item[0]))
            self._models = {**self._models, model.name: dict(changed)}
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


def _not_found(field: str, given: str, known: str) -> NotFound:
    text = f"is {given[:128]!r}{known}" if given else f"is empty{known}"
    return NotFound(f"{field}: {text}", [FieldViolation(field, text)])


def _models_text(name: str, models: Mapping[str, object]) -> str:
    """The model whose name is most like the one that was asked for, and those that there are."""
    close = difflib.get_close_matches(name[:128], models, n=1) if len(models) <= MAX_COMPARED else []
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{hint}; the models here are {listing(sorted(models))}" if models else "; there are no models here yet"
