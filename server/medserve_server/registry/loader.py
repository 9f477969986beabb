"""Loads model versions in the background, replaces served ones atomically, and refuses files that cannot be served."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from medserve_server.config import Settings
from medserve_server.engine.model import Model
from medserve_server.errors import ModelLoadError, TransientLoadError, printable
from medserve_server.registry.discovery import Found, Key, is_valid_key
from medserve_server.registry.integrity import read_model, read_public_key
from medserve_server.registry.registry import ModelRegistry
from medserve_server.supervise import Pool, ThreadStartError, reporting, start_thread
from medserve_server.telemetry.metrics import Metrics
from medserve_server.version_policy import VersionPolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """A version in the repository; equal as long as loading it would have the same outcome."""

    found: Found
    listed: str | None
    """Checksum from the repository's checksum file, empty if the model is not listed; None if there is no such file."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the current content of a version is not served."""

    content: Content
    reason: str
    transient: bool = False
    """Whether loading may succeed later with the same content, for example because the file could not be read."""


class ModelLoader:
    """Loads versions and tracks which are loaded and which are refused.

    All methods except `stop` must be called from one thread; `loaded`, `refused` and `loading` may be read from others.

    Args:
        settings: limits, the version policy, and the public key for signatures.
        models: the registry in which requests look up models.
        metrics: the metrics of the server.
        thread: the thread that calls the methods; cleanup after closing a model is scheduled on it.
    """

    def __init__(
        self,
        settings: Settings,
        models: ModelRegistry,
        metrics: Metrics,
        thread: Pool,
    ) -> None:
        self._settings = settings
        self._models = models
        self._metrics = metrics
        self._thread = thread
        self._policy = VersionPolicy.parse(settings.version_policy)
        self._public_key = read_public_key(settings.require_signed) if settings.require_signed else None
        self.loaded: dict[Key, Content] = {}
        self.refused: dict[Key, Refusal] = {}
        """Versions whose current content cannot be served."""
        self._retried: dict[Key, str] = {}
        """Previous refusal reasons of the versions that are being retried."""
        self._fatal = False
        self.loading: Key | None = None
        self._retiring: dict[threading.Event, Key] = {}  # set once its model is closed
        self._stopping = threading.Event()

    def bring_up_to_date(
        self, name: str, contents: Mapping[str, Content], unsettled: frozenset[Key], *, fatal: bool = False
    ) -> None:
        """Loads and unloads versions of a model so that those chosen by the version policy are served.

        Args:
            name: name of the model.
            contents: content of its folder, by version; an empty version means that the folder cannot be listed.
            unsettled: versions that must not be loaded yet.
            fatal: whether the server exits with the reason if a version is refused; the refusal is then not logged.
        """
        self._fatal = fatal
        self._clear_refusals(name, contents)
        for version, content in contents.items():
            if content.found.problem is not None and (name, version) not in self.refused:
                self._refuse((name, version), content, content.found.problem)
        while True:
            closed = {*self.refused, *unsettled}
            new = {v for v in contents if (name, v) not in closed and self.loaded.get((name, v)) != contents[v]}
            wanted = self._policy.choose(name, new | {v for v in contents if (name, v) in self.loaded})
            missing = [version for version in wanted if version in new]
            if not missing or self._stopping.is_set():
                break
            self._load((name, missing[0]), contents[missing[0]])
        if "" not in contents:
            for version in self._models.versions(name):
                if version not in wanted:
                    self.unload((name, version))

    def _clear_refusals(self, name: str, contents: Mapping[str, Content]) -> None:
        """Clears refusals of a model's versions that have changed or failed for a transient reason."""
        refused = {key: refusal for key, refusal in self.refused.items() if key[0] == name}
        self._retried = {key: refusal.reason for key, refusal in refused.items() if refusal.transient}
        for key, refusal in refused.items():
            if refusal.transient or refusal.content != contents.get(key[1]):
                self.clear_refusal(key)

    def clear_refusal(self, key: Key) -> None:
        """Clears the refusal of a version, so that it is retried."""
        del self.refused[key]
        self._forget(key)

    def unload(self, key: Key) -> None:
        """Stops serving a version."""
        del self.loaded[key]
        self._retire(self._models.remove(*key))
        log.info("%s/%s is no longer served", *key)

    def stop(self) -> None:
        """Stops loading models and waiting for retiring ones; may be called from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Closes all models."""
        for ended in list(self._retiring):
            ended.wait()
        for model in self._models:
            with reporting("closing a model"):
                model.close()

    def _load(self, key: Key, content: Content) -> None:
        """Loads a version and serves it, or refuses it."""
        self.loading = key
        try:
            model = self._read(key, content)
        except ModelLoadError as error:
            path = content.found.path
            reason = str(error).removeprefix(f"{path}: ").replace(f"{path.parent}/", "")
            self._refuse(key, content, reason, transient=isinstance(error, TransientLoadError))
        except (OSError, MemoryError) as error:
            self._refuse(key, content, f"loading it failed: {_text(error)}", transient=True)
        except ThreadStartError as error:
            self._refuse(key, content, str(error), transient=True)
        except Exception as error:  # a hostile file may raise anything; it must not affect other models
            log.exception("loading %s/%s failed unexpectedly", *key)
            self._refuse(key, content, f"loading it raised {type(error).__name__}; see the server log")
        else:
            if model is not None:
                replaced = self._models.put(model)
                log.info("%s/%s is now served, SHA-256 %s", *key, model.sha256)
                if replaced is not None:
                    self._retire(replaced)
            self.loaded[key] = content
        finally:
            self.loading = None

    def _read(self, key: Key, content: Content) -> Model | None:
        """Reads and loads a version; returns None if the same model is already being served."""
        found = content.found
        max_bytes = self._settings.max_model_mib * 1024 * 1024
        data_bytes = sum(size for _, size, *_ in found.external_data)
        if data_bytes > max_bytes:
            raise ModelLoadError(f"its external data has {data_bytes} bytes, at most {max_bytes} are allowed")
        file = read_model(found.path, max_bytes=max_bytes, listed=content.listed, public_key=self._public_key)
        before = self.loaded.get(key)
        same_data = before is not None and before.found.external_data == found.external_data
        if same_data and self._models.get(*key, lists_models=True).sha256 == file.sha256:
            return None
        return Model(*key, file, self._settings, self._metrics)

    def _refuse(self, key: Key, content: Content, reason: str, *, transient: bool = False) -> None:
        refusal = self.refused[key] = Refusal(content, printable(reason), transient)
        if not self._fatal and self._retried.get(key) != refusal.reason:
            log.error("%s is refused: %s", printable("/".join(key)), refusal.reason)
        self._metrics.load_failures.inc()
        if is_valid_key(key):  # no series for arbitrary folder names
            self._metrics.model_refused.labels(*key).set(1)

    def _retire(self, model: Model) -> None:
        """Closes a model that was removed from the registry once its last request is answered."""
        ended = threading.Event()
        self._retiring[ended] = model.name, model.version

        def retire() -> None:
            with reporting("closing a model"):
                model.retire(self._stopping)
            try:
                self._thread.start("closing a model", retired)
            finally:
                ended.set()

        def retired() -> None:
            self._forget(self._retiring.pop(ended))

        try:
            start_thread("closing a model", retire, name=f"retire-{model.name}")
        except ThreadStartError as error:
            # This blocks loading meanwhile, but the model's last requests are answered and its memory is freed.
            log.warning("%s/%s is closed in the thread that loads models: %s", model.name, model.version, error)
            self._thread.start("closing a model", retire)

    def _forget(self, key: Key) -> None:
        """Removes metric series of a version that are no longer valid."""
        if key in self.refused:
            return
        self._metrics.model_refused.remove_by_labels({"model": key[0], "version": key[1]})
        if key not in self.loaded and key not in self._retiring.values():
            self._metrics.forget(*key)


def _text(error: OSError | MemoryError) -> str:
    """Returns the operating system's error message, without a path."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
