"""Networks for patient risk."""
