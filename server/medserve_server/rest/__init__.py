"""REST: the Open Inference Protocol and the typed APIs as JSON, answered by the methods of gRPC."""
