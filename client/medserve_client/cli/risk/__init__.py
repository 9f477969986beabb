"""The `medserve risk` subcommand."""
