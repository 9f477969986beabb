"""grpc.reflection.v1alpha: gRPC's server reflection."""
