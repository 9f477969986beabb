"""What belongs to a whole process: its heaps, its log and its warnings."""

import ctypes
import gc
import os
import warnings

from medserve_server.config import Settings
from medserve_server.telemetry.logs import set_up_logs

_M_ARENA_MAX = -8  # malloc.h of glibc
_ARENAS = 2


def set_up_process(settings: Settings) -> None:
    """Sets these up, once."""
    share_heaps()
    set_up_logs(settings.log_format, settings.log_level)
    # They warn of sloppy metadata in images that they read all the same: anyone could fill the log with that, and
    # pydicom quotes it.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.|pydicom\.")


def share_heaps() -> None:
    """Has all threads share two heaps, where the C library is glibc; `MALLOC_ARENA_MAX` in the environment wins.

    By default glibc gives threads up to eight heaps a core, and what is freed in one is free only there. A model is
    loaded in one thread and run in others, so each new version left holes in several heaps that nothing filled again.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and "MALLOC_ARENA_MAX" not in os.environ:
        library.mallopt(_M_ARENA_MAX, _ARENAS)


def freeze_heap() -> None:
    """Keeps the garbage collector from looking again and again at what lasts as long as the process.

    Called after all modules are imported and before models are loaded, since a frozen cycle is never freed.
    """
    gc.collect()
    gc.freeze()
