"""How calls reach the services: grpcio's server, or Envoy with an ASGI application inside."""
