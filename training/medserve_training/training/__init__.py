"""Trains networks, and makes a model file of what comes out."""
