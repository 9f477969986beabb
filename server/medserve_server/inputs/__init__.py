"""What clients send to a model with a manifest, turned into arrays."""
