"""How fast medserve is: load, ceiling and peers, side by side."""
