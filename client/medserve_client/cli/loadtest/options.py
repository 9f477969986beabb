"""The options of `medserve loadtest`."""

import argparse
import math
from pathlib import Path

ENCODINGS = ("json", "binary")
"""Of tensors in HTTP."""

_SWEEP_FORM = "START:STOP:STEPS"
_CONNECTIONS = (
    "in total, by default one for each process; with --http the most at once, by default --concurrency, "
    "or 64 with --rate and --sweep"
)


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds all but those that every command has."""
    command.add_argument(
        "--http",
        nargs="?",
        const="json",
        choices=ENCODINGS,
        help="the Open Inference Protocol over HTTP/1.1 instead of gRPC, one request at a time over a connection; "
        "tensors are JSON, the default, or binary data behind it; needs --model, whose tensors are made up",
    )
    _add_inputs(command)
    _add_load(command)
    command.add_argument(
        "--metrics-url", metavar="URL", help="by default http://HOST:8002/metrics of --server's host, if it answers"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    command.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them there; needs matplotlib")


def _add_inputs(command: argparse.ArgumentParser) -> None:
    inputs = command.add_argument_group("requests").add_mutually_exclusive_group()
    inputs.add_argument("--images", nargs="+", type=Path, metavar="FILE", help="pictures; by default noise")
    inputs.add_argument("--patients", type=Path, metavar="FILE.csv", help="rows; by default made up")
    command.add_argument("--batch", type=count, default=1, metavar="N", help="items in a request, by default 1")
    command.add_argument(
        "--mode", choices=("unary", "stream"), default="unary", help="a call for each request, or one stream for all"
    )


def _add_load(command: argparse.ArgumentParser) -> None:
    load = command.add_mutually_exclusive_group()
    load.add_argument(
        "--concurrency", type=count, metavar="N", help="closed loop: so many in flight in total; the default, with 16"
    )
    load.add_argument("--rate", type=rate, metavar="R", help="open loop: so many a second, at random times")
    load.add_argument("--sweep", type=sweep, metavar=_SWEEP_FORM, help="open loop at several rates; finds the knee")
    add = command.add_argument
    add("--objective-ms", type=rate, default=50.0, metavar="MS", help="p99 up to which a rate is good, by default 50")
    add("--duration", type=rate, default=10.0, metavar="SECONDS", help="measured, by default 10")
    add("--warmup", type=pause, default=2.0, metavar="SECONDS", help="of load before it, by default 2")
    add("--connections", type=count, metavar="C", help=_CONNECTIONS)
    add("--processes", type=count, default=1, metavar="P", help="that make the load, by default 1")
    add("--seed", type=int, default=0, help="of the random times and items, by default 0")


def count(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def rate(text: str) -> float:
    """A finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def pause(text: str) -> float:
    """A finite number, 0 or above."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 on")
    return number


def sweep(text: str) -> list[float]:
    """Rates, each by the same factor above the one before it."""
    try:
        start, stop, steps = text.split(":")
        first, last, number = rate(start), rate(stop), count(steps)
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"{text} is not {_SWEEP_FORM}, e.g. 100:3200:6") from None
    if number < 2 or last <= first:
        raise argparse.ArgumentTypeError(f"{text}: expected START below STOP, and at least 2 STEPS")
    return [first * (last / first) ** (step / (number - 1)) for step in range(number)]
