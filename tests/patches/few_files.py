"""Lowers the limit on open files."""

import resource


def apply(files: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
