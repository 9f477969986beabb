"""`medserve loadtest --http`: builds requests of the Open Inference Protocol."""

import argparse

from medserve_client.cli.exit_codes import UsageError
from medserve_client.loadtest import LoadError
from medserve_client.loadtest.requests import Workload
from medserve_client.loadtest.rest import Service
from medserve_client.loadtest.tensors import tensor_workload


def http_workload(options: argparse.Namespace) -> Workload:
    """Returns requests with synthetic tensors of the model's input shapes, after sending one of them.

    Raises:
        UsageError: options are incompatible, or no tensors can be generated for the model.
        InferenceError: the server rejects the request or is unreachable.
    """
    if options.mode == "stream":
        raise UsageError("--mode stream requires gRPC; omit --http or use --mode unary")
    if options.images or options.patients is not None:
        raise UsageError("--images and --patients require gRPC; --http generates the model's tensors")
    if not options.model:
        raise UsageError("--http requires --model: the Open Inference Protocol cannot list models")
    service = Service(options.server, options.timeout, options.encryption, options.token)
    binary = options.http == "binary"
    try:
        return tensor_workload(
            service, options.model, options.version, batch=options.batch, binary=binary, seed=options.seed
        )
    except (ValueError, LoadError) as error:
        raise UsageError(f"{options.model}: {error}") from error
