"""REST: the Open Inference Protocol and the typed APIs as JSON, served by the gRPC methods."""
