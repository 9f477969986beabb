"""Process-wide setup: memory allocator, logging and warnings."""

import ctypes
import gc
import os
import warnings

from medserve_server.config import Settings
from medserve_server.telemetry.logs import set_up_logs

_M_ARENA_MAX = -8  # malloc.h of glibc
_ARENAS = 2


def set_up_process(settings: Settings) -> None:
    """Configures the allocator, logging and warnings of this process; called once."""
    share_heaps()
    set_up_logs(settings.log_format, settings.log_level)
    # They warn about malformed metadata in images that they can still read: clients could flood the log with such
    # warnings, and pydicom's quote the metadata.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.|pydicom\.")


def share_heaps() -> None:
    """Limits glibc to two malloc arenas; `MALLOC_ARENA_MAX` in the environment takes precedence.

    By default glibc creates up to eight arenas per core, and memory freed in one arena can be reused only there. A
    model is loaded in one thread and run in others, so that each new version left unused memory in several arenas.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and "MALLOC_ARENA_MAX" not in os.environ:
        library.mallopt(_M_ARENA_MAX, _ARENAS)


def freeze_heap() -> None:
    """Excludes all current objects, which live as long as the process, from garbage collection.

    Called after all modules are imported and before models are loaded, since frozen reference cycles are never freed.
    """
    gc.collect()
    gc.freeze()
