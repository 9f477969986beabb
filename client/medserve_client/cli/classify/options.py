"""Command-line options of `medserve classify`."""

import argparse
from pathlib import Path

from medserve_client.cli import argument_types
from medserve_client.cli.exit_codes import UsageError
from medserve_client.cli.images.options import add_options as add_image_options
from medserve_client.reasons import ImageReasons


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    add_image_options(command)
    command.add_argument(
        "--top-k", type=argument_types.count, default=0, help="number of labels for each image; default: 0, all"
    )
    command.add_argument("--class-activation", action="store_true", help="show class activation maps")
    command.add_argument(
        "--occlusion", action="store_true", help="show occlusion maps: the drop in probability when a patch is covered"
    )
    command.add_argument("--label", default="", help="label that the maps explain; default: the predicted label")
    command.add_argument(
        "--overlay",
        type=Path,
        metavar="FOLDER",
        help="write each map, rendered over its image, to this folder, e.g. as NAME.occlusion.png",
    )


def image_reasons(options: argparse.Namespace) -> ImageReasons | None:
    """Returns the requested explanations.

    Raises:
        UsageError: options are incompatible.
    """
    if not (options.class_activation or options.occlusion):
        if options.overlay is not None or options.label:
            raise UsageError("--overlay and --label apply to maps; add --class-activation or --occlusion")
        return None
    if options.overlay is None and options.output is not None and options.output.suffix.lower() == ".csv":
        raise UsageError("a CSV cannot hold maps; write a .jsonl file, or save the maps with --overlay")
    return ImageReasons(options.label, options.class_activation, options.occlusion, overlay=options.overlay is not None)
