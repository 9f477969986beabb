"""`medserve loadtest --http`: which requests of the Open Inference Protocol the load is made of."""

import argparse

from medserve_client.cli.exit_codes import UsageError
from medserve_client.loadtest import LoadError
from medserve_client.loadtest.requests import Workload
from medserve_client.loadtest.rest import Service
from medserve_client.loadtest.tensors import tensor_workload


def http_workload(options: argparse.Namespace) -> Workload:
    """Made-up tensors of the shapes that the model takes, once tried.

    Raises:
        UsageError: options don't go together, or nothing can be made up for the model.
        InferenceError: the server refuses the request, or can't be reached.
    """
    if options.mode == "stream":
        raise UsageError("--mode stream is of gRPC; HTTP/1.1 has a request for each answer")
    if options.images or options.patients is not None:
        raise UsageError("--images and --patients are of gRPC; with --http the model's tensors are made up")
    if not options.model:
        raise UsageError("--http needs --model: the Open Inference Protocol lists no models")
    service = Service(options.server, options.timeout, options.encryption, options.token)
    binary = options.http == "binary"
    try:
        return tensor_workload(
            service, options.model, options.version, batch=options.batch, binary=binary, seed=options.seed
        )
    except (ValueError, LoadError) as error:
        raise UsageError(f"{options.model}: {error}") from error
