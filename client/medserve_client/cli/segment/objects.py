"""The file of `medserve segment --objects`: a CSV row for each object."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medserve_client.cli.results_file import csv_cell, csv_line, written_whole
from medserve_client.cli.segment.record import FLOAT_FORMAT
from medserve_client.segmentation.results import SegmentationResult

_SIZES = (
    "area_px",
    "area",
    "equivalent_diameter",
    "major_axis",
    "minor_axis",
    "perimeter",
    "circularity",
    "mean_probability",
    "touches_border",
)
_COLUMNS = ("file", "frame", "label", "id", "left", "top", "width", "height", "centroid_x", "centroid_y", *_SIZES)


@contextmanager
def objects_file(path: Path, frame: int) -> Iterator[Callable[[str, SegmentationResult], None]]:
    """Yields a function that writes the objects of an image file; `path` is replaced when the block succeeds.

    The column `unit` is that of lengths, "mm" or "px"; `area` is in its square. Boxes and centroids are in pixels.

    Raises:
        UsageError: the file cannot be written.
    """
    with written_whole(path) as file:
        file.write(csv_line([*_COLUMNS, "unit"]))

        def add(name: str, result: SegmentationResult) -> None:
            for label in result.labels:
                for one in label.objects:
                    box = (one.box.left, one.box.top, one.box.width, one.box.height)
                    sizes = (getattr(one, size) for size in _SIZES)
                    cells = (name, frame, label.label, one.id, *box, *one.centroid, *sizes, result.unit)
                    file.write(csv_line([csv_cell(cell, FLOAT_FORMAT) for cell in cells]))

        yield add
