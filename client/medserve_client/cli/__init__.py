"""The command `medserve`."""

from medserve_client.cli.command import main

__all__ = ["main"]
