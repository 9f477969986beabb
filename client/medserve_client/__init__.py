"""Calls a medserve server."""
