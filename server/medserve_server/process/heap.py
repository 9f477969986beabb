"""How memory is handed out to threads, and what the garbage collector looks at."""

import ctypes
import gc
import os

_M_ARENA_MAX = -8  # malloc.h of glibc
_ARENAS = 2


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
