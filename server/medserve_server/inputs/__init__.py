"""Decodes and validates the inputs of models with a manifest."""
