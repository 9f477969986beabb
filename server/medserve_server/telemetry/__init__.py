"""Observability: metrics, logs, call records and traces."""
