"""The models that are served: found in the model repository, checked, loaded, replaced."""
