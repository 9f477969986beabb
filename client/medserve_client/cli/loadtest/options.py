"""Command-line options of `medserve loadtest`."""

import argparse
import math
from pathlib import Path

ENCODINGS = ("json", "binary")
"""Encodings of tensors over HTTP."""

_SWEEP_FORM = "START:STOP:STEPS"
_CONNECTIONS = (
    "total number of connections; default: one for each process. With --http the maximum number, default: "
    "--concurrency, or 64 with --rate and --sweep"
)


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options that are specific to this subcommand."""
    command.add_argument(
        "--http",
        nargs="?",
        const="json",
        choices=ENCODINGS,
        help="use the Open Inference Protocol over HTTP/1.1 instead of gRPC, one request at a time per connection; "
        "tensors are JSON (the default) or binary data after it; requires --model, whose input tensors are generated",
    )
    _add_inputs(command)
    _add_load(command)
    command.add_argument(
        "--metrics-url",
        metavar="URL",
        help="address of the server's metrics; default: http://HOST:8002/metrics with the host of --server, if it "
        "answers",
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    command.add_argument("--plot", type=Path, metavar="FILE.png", help="plot the results; requires matplotlib")


def _add_inputs(command: argparse.ArgumentParser) -> None:
    inputs = command.add_argument_group("requests").add_mutually_exclusive_group()
    inputs.add_argument("--images", nargs="+", type=Path, metavar="FILE", help="images to send; default: noise")
    inputs.add_argument("--patients", type=Path, metavar="FILE.csv", help="patients to send; default: random patients")
    command.add_argument("--batch", type=count, default=1, metavar="N", help="items per request; default: 1")
    command.add_argument(
        "--mode", choices=("unary", "stream"), default="unary", help="one call per request, or one stream for all"
    )


def _add_load(command: argparse.ArgumentParser) -> None:
    load = command.add_mutually_exclusive_group()
    load.add_argument(
        "--concurrency", type=count, metavar="N", help="closed loop: total requests in flight; the default, with 16"
    )
    load.add_argument("--rate", type=rate, metavar="R", help="open loop: requests per second, with Poisson arrivals")
    load.add_argument("--sweep", type=sweep, metavar=_SWEEP_FORM, help="open loop at several rates; finds the knee")
    add = command.add_argument
    add("--objective-ms", type=rate, default=50.0, metavar="MS", help="p99 latency objective of --sweep; default: 50")
    add("--duration", type=rate, default=10.0, metavar="SECONDS", help="length of the measurement; default: 10")
    add("--warmup", type=pause, default=2.0, metavar="SECONDS", help="load before the measurement; default: 2")
    add("--connections", type=count, metavar="C", help=_CONNECTIONS)
    add("--processes", type=count, default=1, metavar="P", help="processes that generate the load; default: 1")
    add("--seed", type=int, default=0, help="random seed of the arrival times and items; default: 0")


def count(text: str) -> int:
    """Parses an integer above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not an integer above 0")
    return number


def rate(text: str) -> float:
    """Parses a finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return number


def pause(text: str) -> float:
    """Parses a finite non-negative number."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of seconds, 0 or above")
    return number


def sweep(text: str) -> list[float]:
    """Parses a sweep into geometrically spaced rates."""
    try:
        start, stop, steps = text.split(":")
        first, last, number = rate(start), rate(stop), count(steps)
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"{text} is not {_SWEEP_FORM}, e.g. 100:3200:6") from None
    if number < 2 or last <= first:
        raise argparse.ArgumentTypeError(f"{text}: expected START below STOP and at least 2 STEPS")
    return [first * (last / first) ** (step / (number - 1)) for step in range(number)]
