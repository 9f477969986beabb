"""grpc.reflection.v1alpha: gRPC server reflection."""
