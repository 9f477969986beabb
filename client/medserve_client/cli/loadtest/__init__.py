"""`medserve loadtest`."""
