"""A server that issues a warning, raises an uncaught exception and fails during a model run."""

import warnings

from medserve_server.process.lifecycle import Server


class Finalized:
    def __del__(self) -> None:
        raise ZeroDivisionError


def apply() -> None:
    async def run(*_: object) -> None:
        warnings.simplefilter("always")
        warnings.warn("two\nlines", stacklevel=1)
        Finalized()
        raise LookupError("rows of a " + "patient")

    Server.run = run  # type: ignore[method-assign, assignment]
