"""Generates a schema and a recipe for a user's own data, for `medserve-train init`."""
