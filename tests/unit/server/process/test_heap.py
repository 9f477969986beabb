"""Number of malloc arenas shared by the server's threads."""

import os
import subprocess
import sys

import pytest

from waiting import PATIENCE

# Twenty threads hold memory concurrently; then glibc lists every arena.
PROGRAM = """
import ctypes, threading
from medserve_server.process.process_setup import share_heaps

if {shared}:
    share_heaps()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(20)

def hold():
    library.malloc(ctypes.c_size_t(10_000))
    barrier.wait()

threads = [threading.Thread(target=hold) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library.malloc_stats()
"""


@pytest.mark.parametrize(
    ("shared", "variables", "heaps"), [(True, {}, 2), (False, {}, None), (True, {"MALLOC_ARENA_MAX": "3"}, 3)]
)
@pytest.mark.process
def test_threads_share_two_heaps_unless_the_environment_overrides_it(
    shared: bool, variables: dict[str, str], heaps: int | None
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | variables
    program = PROGRAM.format(shared=shared)
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stderr
    found = told.count("Arena ")
    assert found == heaps or (heaps is None and found > 3), told
