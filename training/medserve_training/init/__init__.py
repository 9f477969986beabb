"""Starts a schema and a recipe from a user's own data: what `medserve-train init` writes."""
