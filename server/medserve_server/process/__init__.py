"""Processes of the server: command line, supervisor and workers, from startup to shutdown."""
