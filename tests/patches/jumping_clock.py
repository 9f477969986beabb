"""A wall clock whose readings are alternately an hour ahead and behind.

grpc compares two readings, one of them in C.
"""

import itertools
import sys
import time


def apply() -> None:
    now, jumps = time.time, itertools.cycle([3600, -3600])
    time.time = lambda: now() + (0 if sys._getframe(1).f_code.co_name == "_deadline" else next(jumps))  # noqa: SLF001
