"""A wall clock that every look finds an hour before or behind.

grpc compares two of its own looks, one of them in C.
"""

import itertools
import sys
import time


def apply() -> None:
    now, jumps = time.time, itertools.cycle([3600, -3600])
    time.time = lambda: now() + (0 if sys._getframe(1).f_code.co_name == "_deadline" else next(jumps))  # noqa: SLF001
