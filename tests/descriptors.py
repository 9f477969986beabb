"""A process that may open no file."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_descriptors(process: int = 0) -> Iterator[None]:
    """Every file that the process opens meanwhile fails with EMFILE; by default this process.

    The standard streams have the three numbers that are left. With a limit below the number of descriptors that it is
    given, poll(2) would fail too.
    """
    soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, (soft, hard))
