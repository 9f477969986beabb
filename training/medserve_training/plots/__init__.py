"""Plots of a model's performance."""
