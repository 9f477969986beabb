"""The `medserve classify` subcommand."""
