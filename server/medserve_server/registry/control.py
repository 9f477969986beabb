"""Model control: loads models at startup, when the repository changes, or on request of a client."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medserve_server.config import Settings
from medserve_server.engine.providers import candidates
from medserve_server.errors import FieldViolation, ModelLoadError, ModelRefused, NotFound, Unsupported, printable
from medserve_server.registry.discovery import MODEL_FILE, Key, find_versions
from medserve_server.registry.integrity import read_checksums
from medserve_server.registry.loader import Content, ModelLoader
from medserve_server.registry.registry import ModelRegistry
from medserve_server.supervise import Pool, report
from medserve_server.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

EXPECTED_LAYOUT = (
    f"expected a folder with <name>/<version>/{MODEL_FILE}, such as models/ in a checkout of medserve, or the folder "
    "that medserve-train fit writes to"
)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A version as reported by RepositoryIndex."""

    name: str
    version: str
    state: str
    """READY, LOADING or UNAVAILABLE."""
    reason: str = ""


class ModelControl:
    """Loads and unloads models, one at a time, in a dedicated thread.

    Args:
        settings: the model repository, the model control mode and the polling interval.
        models: the registry in which requests look up models.
        metrics: the metrics of the server.

    Raises:
        ModelLoadError: the public key of --require-signed cannot be read.
    """

    def __init__(self, settings: Settings, models: ModelRegistry, metrics: Metrics) -> None:
        self._settings = settings
        self._models = models
        self._thread = Pool(1, thread_name_prefix="model-control")
        self._loader = ModelLoader(settings, models, metrics, self._thread)
        self._contents: dict[Key, Content] = {}  # at the last poll
        self._unsettled: frozenset[Key] = frozenset()  # changed between the last two polls
        self._last_error = ""

    async def start(self) -> None:
        """Loads the models that are served from startup.

        Raises:
            ModelLoadError: the repository cannot be read; or, unless it is polled for changes, a model in it cannot be
                served.
        """
        await self._in_thread(self._start)
        self._models.ready = True

    async def poll(self) -> None:
        """Polls the repository for changes until cancelled; returns immediately unless --model-control is poll."""
        while self._settings.model_control == "poll":
            await asyncio.sleep(self._settings.poll_interval)
            try:
                await self._in_thread(self._poll)
            except Exception as error:  # noqa: BLE001 - reported; the next poll may succeed
                report("repository", error)

    async def load(self, name: str) -> None:
        """Loads a model from its folder.

        Raises:
            Unsupported: --model-control is not explicit.
            NotFound: the repository has no such model.
            ModelRefused: a version cannot be served; versions that were served before still are.
        """
        self._check_explicit()
        await self._in_thread(self._load, name)

    async def unload(self, name: str) -> None:
        """Stops serving all versions of a model; requests in flight are answered.

        Raises:
            Unsupported: --model-control is not explicit.
            NotFound: the model is not served.
        """
        self._check_explicit()
        await self._in_thread(self._unload, name)

    async def index(self) -> list[IndexEntry]:
        """Returns all versions that are in the repository or served.

        Raises:
            ModelRefused: the repository cannot be read.
        """
        contents: Mapping[Key, Content] = self._contents
        if self._settings.model_control == "explicit":  # the repository is not polled
            contents = await asyncio.to_thread(self._read_for_caller)
        return [self._index_entry(key) for key in sorted({*contents, *list(self._loader.loaded)})]

    def close(self) -> None:
        """Closes all models; call it once no request is in flight."""
        self._loader.stop()
        self._thread.submit(self._loader.close).result()
        self._thread.shutdown()

    async def _in_thread(self, function: Callable[..., None], *arguments: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _check_explicit(self) -> None:
        mode = self._settings.model_control
        if mode != "explicit":
            raise Unsupported(
                f"models are loaded on request only with --model-control explicit; this server has {mode}"
            )

    def _start(self) -> None:
        settings = self._settings
        candidates(settings)  # fails here if the provider is unavailable, which is not a fault of any model
        self._contents = self._read_repository()
        names = sorted({name for name, _ in self._contents})
        if settings.model_control == "explicit":
            if missing := sorted({*settings.load_model} - {*names}):
                raise ModelLoadError(f"--load-model {missing[0]}: --models {settings.models} has no such model")
            names = sorted({*settings.load_model})
        elif not names and settings.model_control == "none":
            raise ModelLoadError(
                f"--models {settings.models}: {settings.models.absolute()} contains no model; {EXPECTED_LAYOUT}"
            )
        fatal = settings.model_control != "poll"
        for name in names:
            self._bring_up_to_date(name, fatal=fatal)
            if fatal and self._loader.refused:
                refusals = self._loader.refused.values()
                raise ModelLoadError("; ".join(f"{each.content.found.path}: {each.reason}" for each in refusals))

    def _poll(self) -> None:
        try:
            contents = self._read_repository()
        except ModelLoadError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.warning("the served models are unchanged: %s", printable(self._last_error))
            return
        self._last_error = ""
        # A file may still be being written, so it is loaded only once two consecutive polls find it unchanged.
        self._unsettled = frozenset(key for key in contents if contents[key] != self._contents.get(key))
        for key in sorted(self._unsettled):
            log.info("%s has changed; it is loaded if it is unchanged at the next poll", printable("/".join(key)))
        self._contents = contents
        for name in sorted({name for name, _ in (*contents, *self._loader.loaded, *self._loader.refused)}):
            self._bring_up_to_date(name)

    def _load(self, name: str) -> None:
        self._contents = self._read_for_caller()
        keys = [key for key in self._contents if key[0] == name]
        if not keys:
            raise _not_found(f"is {name[:128]!r}, which is not in the repository")
        for key in keys:
            if key in self._loader.refused:  # an explicit request retries it
                self._loader.clear_refusal(key)
        self._bring_up_to_date(name)
        refused = self._loader.refused
        if reasons := [f"version {key[1]}: {refused[key].reason}" for key in keys if key in refused]:
            raise ModelRefused(f"{name}: {'; '.join(reasons)}")

    def _unload(self, name: str) -> None:
        versions = self._models.versions(name)
        if not versions:
            raise _not_found(f"is {name[:128]!r}, which is not loaded")
        for version in versions:
            self._loader.unload((name, version))

    def _bring_up_to_date(self, name: str, *, fatal: bool = False) -> None:
        contents = {key[1]: content for key, content in self._contents.items() if key[0] == name}
        self._loader.bring_up_to_date(name, contents, self._unsettled, fatal=fatal)

    def _read_repository(self) -> dict[Key, Content]:
        """Returns the versions in the repository.

        Raises:
            ModelLoadError: the folder cannot be listed, or its checksum file cannot be read.
        """
        folder = self._settings.models
        try:
            found = find_versions(folder)
        except (FileNotFoundError, NotADirectoryError):
            raise ModelLoadError(
                f"--models {folder}: the folder {folder.absolute()} does not exist; {EXPECTED_LAYOUT}"
            ) from None
        except OSError as error:
            raise ModelLoadError(f"--models {folder}: {error.strerror}") from error
        listed = read_checksums(folder)
        return {
            key: Content(version, None if listed is None else listed.get("/".join((*key, MODEL_FILE)), ""))
            for key, version in found.items()
        }

    def _read_for_caller(self) -> dict[Key, Content]:
        try:
            return self._read_repository()
        except ModelLoadError as error:
            log.warning("the model repository cannot be read: %s", printable(str(error)))
            raise ModelRefused("the model repository cannot be read; see the server log") from error

    def _index_entry(self, key: Key) -> IndexEntry:
        name, version = printable(key[0]), printable(key[1])
        refused = self._loader.refused.get(key)
        refusal = refused.reason if refused is not None else ""
        if key in self._loader.loaded:
            if any(model.hangs for model in self._models if (model.name, model.version) == key):
                return IndexEntry(name, version, "UNAVAILABLE", "a run of the model hangs")
            reason = f"the current file is refused: {refusal}" if refusal else ""
            return IndexEntry(name, version, "READY", reason)
        if key == self._loader.loading:
            return IndexEntry(name, version, "LOADING")
        if key in self._unsettled:
            reason = "it has changed; it is loaded if it is unchanged at the next poll"
        else:
            reason = refusal or "not loaded"
        return IndexEntry(name, version, "UNAVAILABLE", reason)


def _not_found(text: str) -> NotFound:
    return NotFound(f"model_name: {text}", [FieldViolation("model_name", text)])
