"""The command `medserve-train`."""
