"""Plots of what a model predicts."""
