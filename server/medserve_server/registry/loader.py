"""Loads versions beside serving, and changes what is served at once; a file that can't be served changes nothing."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from medserve_server.config import Settings
from medserve_server.engine.model import Model
from medserve_server.errors import ModelLoadError, TransientLoadError, printable
from medserve_server.registry.discovery import Found, Key, is_well_named
from medserve_server.registry.integrity import read_model, read_public_key
from medserve_server.registry.registry import ModelRegistry
from medserve_server.supervise import Pool, ThreadStartError, reporting, start_thread
from medserve_server.telemetry.metrics import Metrics
from medserve_server.version_policy import VersionPolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """A version in the repository; equal as long as loading it has the same outcome."""

    found: Found
    listed: str | None
    """Its checksum by the repository's list, empty where it is not on the list; None where there is no list."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version is not served as it lies there."""

    content: Content
    reason: str
    transient: bool = False
    """Whether it may be served later although it does not change: it could not be read."""


class ModelLoader:
    """What is loaded and what is refused. All methods are for one thread; the dictionaries may be read from others.

    Args:
        settings: limits, the version policy, and whose signature is asked for.
        models: where requests find what is loaded.
        metrics: where models are counted.
        thread: runs what has to follow when a model was closed.
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
        """What can't be served as it lies there."""
        self._tried_again: dict[Key, str] = {}
        """Why what is tried again now was refused before."""
        self._fatal = False
        self.loading: Key | None = None
        self._retiring: dict[threading.Event, Key] = {}  # set once its model is closed
        self._stopping = threading.Event()

    def bring_up_to_date(
        self, name: str, contents: Mapping[str, Content], unsettled: frozenset[Key], *, fatal: bool = False
    ) -> None:
        """Makes the versions of a model that are served those that the policy chooses from what can be served.

        Args:
            name: of the model.
            contents: what lies in its folder, by version; an empty version says that the folder can't be listed.
            unsettled: versions that are not to be loaded yet.
            fatal: whether the server ends where one is refused, and says why; then the log does not.
        """
        self._fatal = fatal
        self._reconsider(name, contents)
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

    def _reconsider(self, name: str, contents: Mapping[str, Content]) -> None:
        """Lets a model's versions that were refused be tried again where they changed, or could not be read."""
        refused = {key: refusal for key, refusal in self.refused.items() if key[0] == name}
        self._tried_again = {key: refusal.reason for key, refusal in refused.items() if refusal.transient}
        for key, refusal in refused.items():
            if refusal.transient or refusal.content != contents.get(key[1]):
                self.forgive(key)

    def forgive(self, key: Key) -> None:
        """Lets a version that was refused be tried again."""
        del self.refused[key]
        self._forget(key)

    def unload(self, key: Key) -> None:
        """Serves a version no more."""
        del self.loaded[key]
        self._retire(self._models.remove(*key))
        log.info("%s/%s is served no more", *key)

    def stop(self) -> None:
        """Lets nothing more be loaded, and nothing be waited for; may be called from any thread."""
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
        except Exception as error:  # a hostile file may raise anything; what serves and the others go on
            log.exception("loading %s/%s failed in a way that nobody thought of", *key)
            self._refuse(key, content, f"loading it raised {type(error).__name__}; the server's log says more")
        else:
            if model is not None:
                replaced = self._models.put(model)
                log.info("%s/%s is served, SHA-256 %s", *key, model.sha256)
                if replaced is not None:
                    self._retire(replaced)
            self.loaded[key] = content
        finally:
            self.loading = None

    def _read(self, key: Key, content: Content) -> Model | None:
        """Reads and loads a version; None where it is what is served already."""
        found = content.found
        max_bytes = self._settings.max_model_mib * 1024 * 1024
        data_bytes = sum(size for _, size, *_ in found.beside)
        if data_bytes > max_bytes:
            raise ModelLoadError(f"the files beside it have {data_bytes} bytes, at most {max_bytes} are allowed")
        file = read_model(found.path, max_bytes=max_bytes, listed=content.listed, public_key=self._public_key)
        before = self.loaded.get(key)
        same_data = before is not None and before.found.beside == found.beside
        if same_data and self._models.get(*key, lists_models=True).sha256 == file.sha256:
            return None
        return Model(*key, file, self._settings, self._metrics)

    def _refuse(self, key: Key, content: Content, reason: str, *, transient: bool = False) -> None:
        refusal = self.refused[key] = Refusal(content, printable(reason), transient)
        if not self._fatal and self._tried_again.get(key) != refusal.reason:
            log.error("%s is refused: %s", printable("/".join(key)), refusal.reason)
        self._metrics.load_failures.inc()
        if is_well_named(key):  # no series for whatever somebody calls a folder
            self._metrics.model_refused.labels(*key).set(1)

    def _retire(self, model: Model) -> None:
        """Closes a model that no request finds any more, when its last one is answered."""
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
            # Nothing is loaded meanwhile, but the model's last requests are answered and its memory is freed.
            log.warning("%s/%s is closed by the thread that loads models: %s", model.name, model.version, error)
            self._thread.start("closing a model", retire)

    def _forget(self, key: Key) -> None:
        """Removes the series that say nothing true about a version any more."""
        if key in self.refused:
            return
        self._metrics.model_refused.remove_by_labels({"model": key[0], "version": key[1]})
        if key not in self.loaded and key not in self._retiring.values():
            self._metrics.forget(*key)


def _text(error: OSError | MemoryError) -> str:
    """What the operating system says, without a path."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
