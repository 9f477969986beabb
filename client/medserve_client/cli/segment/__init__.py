"""The `medserve segment` subcommand."""
