"""Command-line options of `medserve segment`."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from medserve_client.cli import argument_types
from medserve_client.cli.images.options import add_options as add_image_options


@dataclass(frozen=True, slots=True)
class Settings:
    """How images are segmented; the attributes are those of `SegmentOptions`."""

    frame: int
    pixel_spacing: tuple[float, float] | None
    max_objects: int


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written; None for nothing.

    Attributes:
        as_json: whether JSON lines are printed.
        results: result file, .csv or .jsonl.
        objects: CSV file with a row for each object.
        coco: JSON file with COCO's instance annotations.
        overlays: folder for the images with the outlines of their objects.
        masks: folder for the masks.
    """

    as_json: bool
    results: Path | None
    objects: Path | None
    coco: Path | None
    overlays: Path | None
    masks: Path | None


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    add_image_options(command)
    add = command.add_argument
    add(
        "--pixel-spacing",
        type=argument_types.pixel_spacing,
        metavar="ROW,COLUMN",
        help="distance between rows and between columns in mm, for images that do not state it, e.g. 0.25,0.25",
    )
    add(
        "--max-objects",
        type=argument_types.count,
        default=0,
        metavar="N",
        help="maximum number of objects listed for each label, largest first; default: 0, the server's limit of 10,000",
    )
    add("--objects", type=Path, metavar="FILE.csv", help="write a row for each object, with its sizes, to this file")
    masks = command.add_mutually_exclusive_group()
    masks.add_argument(
        "--coco", type=Path, metavar="FILE.json", help="write the objects as COCO instance annotations to this file"
    )
    masks.add_argument(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="write the masks to this folder, as NAME.mask.LABEL.png: 16 bits, 0 is background, other values are the "
        "IDs of objects",
    )
    add(
        "--overlay",
        type=Path,
        metavar="FOLDER",
        help="write each image with the outlines of its objects to this folder, as NAME.overlay.png",
    )


def settings(options: argparse.Namespace) -> Settings:
    """Returns how images are to be segmented."""
    return Settings(options.frame, options.pixel_spacing, options.max_objects)


def outputs(options: argparse.Namespace) -> Outputs:
    """Returns what is to be written."""
    return Outputs(options.json, options.output, options.objects, options.coco, options.overlay, options.masks)
