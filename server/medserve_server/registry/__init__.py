"""The model repository and the served models: discovery, verification, loading and replacement."""
