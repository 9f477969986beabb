"""Transports that carry calls to the services: grpcio's server, or Envoy with an embedded ASGI application."""
