"""The `medserve` command."""

from medserve_client.cli.command import main

__all__ = ["main"]
