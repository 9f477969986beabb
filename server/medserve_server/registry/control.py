"""When models are loaded: at the start, whenever the repository changes, or when a client asks for it."""

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

EXPECTED = (
    f"expected a folder of <name>/<version>/{MODEL_FILE}, such as models/ of a checkout of medserve, or the one that "
    "medserve-train fit writes to"
)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What RepositoryIndex tells about a version."""

    name: str
    version: str
    state: str
    """READY, LOADING or UNAVAILABLE."""
    reason: str = ""


class ModelControl:
    """Loads and unloads models, one after the other, in a thread of its own.

    Args:
        settings: the repository, and when to look into it.
        models: where requests find what is loaded.
        metrics: where models are counted.

    Raises:
        ModelLoadError: there is no public key where one was asked for.
    """

    def __init__(self, settings: Settings, models: ModelRegistry, metrics: Metrics) -> None:
        self._settings = settings
        self._models = models
        self._thread = Pool(1, thread_name_prefix="model-control")
        self._loader = ModelLoader(settings, models, metrics, self._thread)
        self._contents: dict[Key, Content] = {}  # as last seen
        self._unsettled: frozenset[Key] = frozenset()  # changed between the last two looks
        self._trouble = ""

    async def start(self) -> None:
        """Loads what is to be served from the start.

        Raises:
            ModelLoadError: the repository can't be read; or a model in it can't be served, and nothing polls for a
                better one.
        """
        await self._in_thread(self._start)
        self._models.ready = True

    async def poll(self) -> None:
        """Looks for changes again and again, where that was asked for."""
        while self._settings.model_control == "poll":
            await asyncio.sleep(self._settings.poll_interval)
            try:
                await self._in_thread(self._poll)
            except Exception as error:  # noqa: BLE001 - reported; the next look may succeed
                report("repository", error)

    async def load(self, name: str) -> None:
        """Loads what a model's folder holds now.

        Raises:
            Unsupported: the server is not told to do so.
            NotFound: the repository has no such model.
            ModelRefused: a version can't be served; what was served still is.
        """
        self._check_explicit()
        await self._in_thread(self._load, name)

    async def unload(self, name: str) -> None:
        """Serves a model no more, in any version; the requests that it has are answered.

        Raises:
            Unsupported: the server is not told to do so.
            NotFound: it is not served.
        """
        self._check_explicit()
        await self._in_thread(self._unload, name)

    async def index(self) -> list[IndexEntry]:
        """Every version in the repository, and every one that is served.

        Raises:
            ModelRefused: the repository can't be read.
        """
        contents: Mapping[Key, Content] = self._contents
        if self._settings.model_control == "explicit":  # where nobody else looks
            contents = await asyncio.to_thread(self._read_for_caller)
        return [self._index_entry(key) for key in sorted({*contents, *list(self._loader.loaded)})]

    def close(self) -> None:
        """Closes all models; to be called when no request is left."""
        self._loader.stop()
        self._thread.submit(self._loader.close).result()
        self._thread.shutdown()

    async def _in_thread(self, function: Callable[..., None], *arguments: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _check_explicit(self) -> None:
        mode = self._settings.model_control
        if mode != "explicit":
            raise Unsupported(f"models are loaded on request with --model-control explicit; this server has {mode}")

    def _start(self) -> None:
        settings = self._settings
        candidates(settings)  # a provider that can't be had is no fault of a model
        self._contents = self._read_repository()
        names = sorted({name for name, _ in self._contents})
        if settings.model_control == "explicit":
            if missing := sorted({*settings.load_model} - {*names}):
                raise ModelLoadError(f"--load-model {missing[0]}: --models {settings.models} has no such model")
            names = sorted({*settings.load_model})
        elif not names and settings.model_control == "none":
            raise ModelLoadError(f"--models {settings.models}: {settings.models.absolute()} holds no model; {EXPECTED}")
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
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.warning("what is served stays as it is: %s", printable(self._trouble))
            return
        self._trouble = ""
        # A file that is still being written is left alone until it looks the same twice.
        self._unsettled = frozenset(key for key in contents if contents[key] != self._contents.get(key))
        for key in sorted(self._unsettled):
            log.info("%s has changed; it is loaded when the next look finds it the same", printable("/".join(key)))
        self._contents = contents
        for name in sorted({name for name, _ in (*contents, *self._loader.loaded, *self._loader.refused)}):
            self._bring_up_to_date(name)

    def _load(self, name: str) -> None:
        self._contents = self._read_for_caller()
        keys = [key for key in self._contents if key[0] == name]
        if not keys:
            raise _not_found(f"is {name[:128]!r}, which the repository does not have")
        for key in keys:
            if key in self._loader.refused:  # whoever asks wants it to be tried again
                self._loader.forgive(key)
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
        """What lies in the repository.

        Raises:
            ModelLoadError: the folder can't be listed, or its list of checksums not be read.
        """
        folder = self._settings.models
        try:
            found = find_versions(folder)
        except (FileNotFoundError, NotADirectoryError):
            raise ModelLoadError(
                f"--models {folder}: there is no such folder as {folder.absolute()}; {EXPECTED}"
            ) from None
        except OSError as error:
            raise ModelLoadError(f"--models {folder}: {error.strerror}") from error
        listed = read_checksums(folder)
        return {
            key: Content(look, None if listed is None else listed.get("/".join((*key, MODEL_FILE)), ""))
            for key, look in found.items()
        }

    def _read_for_caller(self) -> dict[Key, Content]:
        try:
            return self._read_repository()
        except ModelLoadError as error:
            log.warning("the repository can't be read: %s", printable(str(error)))
            raise ModelRefused("the model repository can't be read; the server's log says why") from error

    def _index_entry(self, key: Key) -> IndexEntry:
        name, version = printable(key[0]), printable(key[1])
        refused = self._loader.refused.get(key)
        refusal = refused.reason if refused is not None else ""
        if key in self._loader.loaded:
            if any(model.hangs for model in self._models if (model.name, model.version) == key):
                return IndexEntry(name, version, "UNAVAILABLE", "a run of it does not end")
            reason = f"the file that lies there now is refused: {refusal}" if refusal else ""
            return IndexEntry(name, version, "READY", reason)
        if key == self._loader.loading:
            return IndexEntry(name, version, "LOADING")
        if key in self._unsettled:
            reason = "it has changed; it is loaded when the next look finds it the same"
        else:
            reason = refusal or "not loaded"
        return IndexEntry(name, version, "UNAVAILABLE", reason)


def _not_found(text: str) -> NotFound:
    return NotFound(f"model_name: {text}", [FieldViolation("model_name", text)])
