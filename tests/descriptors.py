"""Exhausts the file descriptors of a process."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_descriptors(process: int = 0) -> Iterator[None]:
    """Makes every file that a process, by default this one, opens in the block fail with EMFILE.

    The limit leaves the three numbers of the standard streams. With a limit below the number of descriptors that it is
    given, poll(2) would fail too.
    """
    soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))
