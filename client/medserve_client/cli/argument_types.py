"""Types of command-line arguments: each parses a text, or raises an error that argparse prints."""

import argparse
import math
from pathlib import Path

from medserve_client.channel import DEFAULT_TARGET
from medserve_client.cli.results_file import FORMATS
from medserve_client.target import check_target


def server(text: str) -> str:
    """Parses HOST:PORT, or a target as gRPC writes it."""
    if ":" not in text.rpartition("]")[2]:  # gRPC would default to port 443
        raise argparse.ArgumentTypeError(f"{text!r} has no port; write HOST:PORT, e.g. {DEFAULT_TARGET}")
    try:
        check_target(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def results_file(text: str) -> Path:
    """Parses the path of a result file, whose suffix is its format."""
    path = Path(text)
    if path.suffix.lower() not in FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} has no known suffix; expected a file name that ends in {' or '.join(FORMATS)}"
        )
    return path


def seconds(text: str) -> float:
    """Parses a finite number of seconds above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of seconds above 0")
    return number


def count(text: str) -> int:
    """Parses an integer that a uint32 field holds."""
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not an integer from 0 to 4294967295")
    return number


def pixel_spacing(text: str) -> tuple[float, float]:
    """Parses ROW,COLUMN: two finite numbers above 0."""
    try:
        row, column = map(float, text.split(","))
    except ValueError:
        row = column = math.nan
    if not (0 < row < math.inf and 0 < column < math.inf):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a pixel spacing; expected the distances between rows and between columns in mm, "
            "above 0, e.g. 0.25,0.25"
        )
    return row, column
