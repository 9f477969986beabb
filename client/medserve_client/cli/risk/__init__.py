"""`medserve risk`."""
