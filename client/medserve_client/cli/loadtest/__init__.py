"""The `medserve loadtest` subcommand."""
