"""`medserve segment`: segments image files and prints a table or JSON lines, or writes files."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import ExitCode, UsageError
from medserve_client.cli.images import pictures
from medserve_client.cli.images.find import find_images
from medserve_client.cli.images.outcomes import Outcome, outcomes
from medserve_client.cli.images.results import written_to
from medserve_client.cli.segment.coco import coco_file
from medserve_client.cli.segment.objects import objects_file
from medserve_client.cli.segment.options import Outputs, Settings
from medserve_client.cli.segment.record import csv_columns, csv_row, record
from medserve_client.cli.segment.table import add_rows, result_table
from medserve_client.client import Client
from medserve_client.results import ModelDescription
from medserve_client.segmentation.results import MaskFormat, SegmentationResult

_Write = Callable[[Outcome[SegmentationResult]], None]
_Save = Callable[[str, SegmentationResult], None]


class _NothingSegmentedError(Exception):
    """All files have failed."""


def segment(
    client: Client, model: ModelDescription, names: Sequence[str], settings: Settings, outputs: Outputs
) -> ExitCode:
    """Segments files and the images in folders; prints a table or JSON lines, or writes a result file.

    Files that cannot be read, that the server rejects or that make it fail are reported on standard error; all others
    are segmented. If all fail, or the command ends with an error, the files of objects and annotations are not written.

    JSON lines are those of `medserve_client.cli.segment.record.record`.

    Args:
        client: client of the server.
        model: model that segments.
        names: paths of images and folders; "-" is standard input.
        settings: how images are segmented.
        outputs: what is printed and written.

    Raises:
        UsageError: no images were found; the pictures of two files would have the same name; a file cannot be written,
            or the result file has results of another model or command.
    """
    found = find_images(names)
    if outputs.overlays is not None or outputs.masks is not None:
        pictures.check_names(found.images)
    masks = MaskFormat.RUN_LENGTH if outputs.coco else MaskFormat.PNG if outputs.masks else MaskFormat.NONE

    def send(contents: list[bytes]) -> Sequence[tuple[SegmentationResult, str]]:
        response = client.segment(
            contents,
            model.name,
            model.version,
            frame=settings.frame,
            pixel_spacing=settings.pixel_spacing,
            max_objects=settings.max_objects,
            masks=masks,
            overlay=outputs.overlays is not None,
        )
        return [(result, response.request_id) for result in response.results]

    succeeded = failed = 0
    with suppress(_NothingSegmentedError), ExitStack() as stack:
        files, write = stack.enter_context(_results(outputs, found.images, settings.frame, model))
        saves = _saves(stack, outputs, settings.frame, model)
        bar_is_alone = not (outputs.as_json and sys.stdout.isatty())
        advance = stack.enter_context(terminal.progress("Images", len(files), shown=bar_is_alone))
        # One image for each request, since a large one takes seconds.
        for (outcome,) in outcomes(files, found.unreadable, send, 1):
            if outcome.result is None:
                failed += 1
            else:
                succeeded += 1
                for save in saves:
                    save(outcome.file.name, outcome.result)
            write(outcome)
            advance(1)
        if failed and not succeeded:
            raise _NothingSegmentedError
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


@contextmanager
def _results(
    outputs: Outputs, files: list[str], frame: int, model: ModelDescription
) -> Iterator[tuple[list[str], _Write]]:
    """Yields the files to segment, and a function that prints or writes the result of one."""
    if outputs.as_json:
        yield files, partial(_print_json, model, frame)
    elif outputs.results is None:
        table = result_table(model)
        yield files, partial(add_rows, table, model)
        if table.row_count:
            terminal.output().print(table)
    else:
        make = csv_row if outputs.results.suffix.lower() == ".csv" else record
        with written_to(outputs.results, files, frame, model, csv_columns(model), make) as (missing, write):
            if len(missing) < len(files) and (whole := outputs.objects or outputs.coco):
                raise UsageError(
                    f"{whole} would lack the objects of the {len(files) - len(missing)} files whose results are in "
                    f"{outputs.results}; choose another file for the results"
                )
            yield missing, write


def _saves(stack: ExitStack, outputs: Outputs, frame: int, model: ModelDescription) -> list[_Save]:
    """Returns functions that write the other outputs of a file; their own files are closed with the stack."""
    saves: list[_Save] = []
    if outputs.objects is not None:
        saves.append(stack.enter_context(objects_file(outputs.objects, frame)))
    if outputs.coco is not None:
        saves.append(stack.enter_context(coco_file(outputs.coco, model)))
    if outputs.overlays is not None:
        saves.append(partial(_save_overlay, outputs.overlays))
    if outputs.masks is not None:
        saves.append(partial(_save_masks, outputs.masks))
    return saves


def _save_overlay(folder: Path, file: str, result: SegmentationResult) -> None:
    pictures.save(folder, file, "overlay", result.overlay_png)


def _save_masks(folder: Path, file: str, result: SegmentationResult) -> None:
    for one in result.labels:
        pictures.save(folder, file, f"mask.{quote(one.label, safe='')}", one.mask_png)


def _print_json(model: ModelDescription, frame: int, outcome: Outcome[SegmentationResult]) -> None:
    print(json.dumps(record(outcome, model, frame)), flush=True)  # noqa: T201 - unchanged, whatever the console width
