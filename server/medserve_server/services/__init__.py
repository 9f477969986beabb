"""The APIs, a file each: from a message to a model and back."""
