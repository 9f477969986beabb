"""The Envoy transport: configuration, process, and the server that runs inside Envoy."""
