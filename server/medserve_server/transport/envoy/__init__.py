"""Envoy: its configuration, its process, and the server that runs in it."""
