"""How the C library hands out memory to threads."""

import ctypes
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
