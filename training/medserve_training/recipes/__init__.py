"""Recipes: the TOML files that come with medserve, and what reads them."""
