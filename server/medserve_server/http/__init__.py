"""Plain HTTP: ASGI types, pages, the metrics port, and the configuration of uvicorn."""
