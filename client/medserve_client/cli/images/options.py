"""Command-line options of the subcommands that send image files."""

import argparse
from pathlib import Path

from medserve_client.cli import argument_types


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the files, the frame, and where the results go."""
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE|FOLDER",
        help="PNG, JPEG, TIFF or DICOM; - is standard input; symbolic links to folders in a folder are not followed",
    )
    command.add_argument(
        "--frame", type=argument_types.count, default=0, help="frame of DICOM files, counted from 0; default: 0"
    )
    outputs = command.add_mutually_exclusive_group()
    outputs.add_argument("--json", action="store_true", help="print one JSON document per line for each file")
    outputs.add_argument(
        "-o",
        "--output",
        type=argument_types.results_file,
        metavar="OUT.csv|OUT.jsonl",
        help="write results to this file as they arrive. When run again, the command skips files that OUT already has "
        "with the same path, size and modification time, retries failed files and replaces the results of changed ones",
    )
