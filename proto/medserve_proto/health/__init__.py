"""grpc.health.v1: the gRPC health checking protocol."""
