"""The manifest of a model: reading and validation, with one module per task."""
