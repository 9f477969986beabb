"""Authentication and authorization, TLS, and per-client limits."""
