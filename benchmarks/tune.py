"""A grid search over the settings of one server: `python -m benchmarks.tune triton BENCH_INSTANCES=1,2`."""

import argparse
import itertools

from benchmarks.measure import Shape
from benchmarks.model import make_model
from benchmarks.servers import PEER_SERVERS, medserve_servers
from benchmarks.trials import trial

SHAPES = (Shape(1, 1), Shape(1, 16), Shape(1, 64), Shape(32, 4))


def main() -> None:
    """Prints the results of each combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE,VALUE")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    arguments = parser.parse_args()
    make_model()
    server = next(each for each in (*PEER_SERVERS, *medserve_servers()) if each.name.startswith(arguments.server))
    names = [setting.partition("=")[0] for setting in arguments.settings]
    choices = [setting.partition("=")[2].split(",") for setting in arguments.settings]
    for values in itertools.product(*choices):
        overrides = dict(zip(names, values, strict=True))
        print(" ".join(f"{name}={value}" for name, value in overrides.items()))  # noqa: T201
        for shape, outcome in trial(server, SHAPES, arguments.seconds, arguments.warmup, overrides):
            text = (
                outcome
                if isinstance(outcome, str)
                else f"{outcome.images_per_second:8.0f}/s  p50 {outcome.p50:7.2f} ms  p99 {outcome.p99:7.2f} ms  "
                f"server {outcome.server_cpu:6.0f} us  client {outcome.client_cpu:5.0f} us  "
                f"{outcome.memory_mib:5.0f} MiB"
            )
            print(f"  {shape.label:42}{text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
