"""Quantizes models to 8-bit integers."""
