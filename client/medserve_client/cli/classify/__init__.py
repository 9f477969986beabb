"""`medserve classify`."""
