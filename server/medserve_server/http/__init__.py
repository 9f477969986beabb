"""Plain HTTP: the ASGI interface, pages, the metrics port, and uvicorn as the server needs it."""
