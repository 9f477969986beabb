"""Trains networks and exports them as model files."""
