"""grpc.health.v1: gRPC's health checking protocol."""
