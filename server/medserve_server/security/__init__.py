"""Who may call, over which encryption, and how much one client may ask for."""
