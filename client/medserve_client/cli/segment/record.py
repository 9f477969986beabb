"""Records of `medserve segment`: one file's result as JSON or CSV."""

from collections.abc import Iterator
from dataclasses import asdict

from medserve_client.cli.images.outcomes import Outcome
from medserve_client.cli.images.results import FILE_COLUMNS, file_cells
from medserve_client.cli.results_file import csv_cell
from medserve_client.results import ModelDescription
from medserve_client.segmentation.results import LabelResult, SegmentationResult, SegmentedObject

FLOAT_FORMAT = ".6g"
"""Of numbers in CSV files: areas of cells in mm² are small."""
_SIZE = ("height", "width", "row_mm", "column_mm")
_NOTES = ("uncertainty", "novelty", "tiles")
_COUNT = ("count", "count_low", "count_high", "area_px", "area_mm2", "area_share")
_MEASURE = ("", "_low", "_high", "_unit")


def record(outcome: Outcome[SegmentationResult], model: ModelDescription, frame: int) -> dict[str, object]:
    """Returns the JSON document of a file.

    It is `{"file", "frame", "size", "mtime_ns", "model", "version", "model_sha256", "request_id", "sop_instance_uid"
    of a DICOM file, "height", "width", "pixel_spacing": {"row_mm", "column_mm", "source"}, "labels": [{"label",
    "area_px", "area_mm2", "area_share", "count", "count_interval": {"low", "high", "coverage"}, "measures": [{"name",
    "unit", "value", "interval"}], "objects": [...]}], "warnings": [{"kind", "message"}], "uncertainty", "novelty",
    "tiles"}`, or the same up to `"model_sha256"` with `"error"`. Objects have the attributes of `SegmentedObject`
    except contours and masks.
    """
    cells, result = file_cells(outcome, model, frame), outcome.result
    if result is None:
        return cells
    if result.sop_instance_uid:
        cells |= {"sop_instance_uid": result.sop_instance_uid}
    spacing = result.pixel_spacing
    return cells | {
        "height": result.height,
        "width": result.width,
        "pixel_spacing": None if spacing is None else asdict(spacing) | {"source": spacing.source.name.lower()},
        "labels": [_label(one) for one in result.labels],
        "warnings": [{"kind": one.kind.name.lower(), "message": one.message} for one in result.warnings],
        **{name: getattr(result, name) for name in _NOTES},
    }


def _label(one: LabelResult) -> dict[str, object]:
    return {
        "label": one.label,
        "area_px": one.area_px,
        "area_mm2": one.area_mm2,
        "area_share": one.area_share,
        "count": one.count,
        "count_interval": None if one.count_interval is None else asdict(one.count_interval),
        "measures": [asdict(measure) for measure in one.measures],
        "objects": [_object(entry) for entry in one.objects],
    }


def _object(one: SegmentedObject) -> dict[str, object]:
    return {
        "id": one.id,
        "box": asdict(one.box),
        "centroid": one.centroid,
        "area_px": one.area_px,
        "area": one.area,
        "equivalent_diameter": one.equivalent_diameter,
        "major_axis": one.major_axis,
        "minor_axis": one.minor_axis,
        "perimeter": one.perimeter,
        "circularity": one.circularity,
        "mean_probability": one.mean_probability,
        "touches_border": one.touches_border,
    }


def csv_columns(model: ModelDescription) -> list[str]:
    """Returns the CSV columns that `csv_row` fills."""
    columns = [*FILE_COLUMNS, *_SIZE]
    for label in model.manifest.image_segmentation.labels:
        columns += [f"{name}_{label.name}" for name in _COUNT]
        for measure in label.measures:
            columns += [_measure_column(measure.name, name, label.name) for name in _MEASURE]
    return [*columns, *_NOTES, "warnings", "error"]


def csv_row(outcome: Outcome[SegmentationResult], model: ModelDescription, frame: int) -> dict[str, object]:
    """Returns the CSV row of a file, by column: numbers with six digits, empty cells for unknown values."""
    whole = record(outcome, model, frame)
    values = {name: whole.get(name) for name in (*FILE_COLUMNS, "height", "width", *_NOTES, "error")}
    if (result := outcome.result) is not None:
        if (spacing := result.pixel_spacing) is not None:
            values |= {"row_mm": spacing.row_mm, "column_mm": spacing.column_mm}
        values |= {name: value for one in result.labels for name, value in _label_values(one)}
        values["warnings"] = "; ".join(one.message for one in result.warnings)
    return {column: csv_cell(values.get(column), FLOAT_FORMAT) for column in csv_columns(model)}


def _label_values(one: LabelResult) -> Iterator[tuple[str, object]]:
    low, high = (one.count_interval.low, one.count_interval.high) if one.count_interval else (None, None)
    values = (one.count, low, high, one.area_px, one.area_mm2, one.area_share)
    yield from ((f"{name}_{one.label}", value) for name, value in zip(_COUNT, values, strict=True))
    for measure in one.measures:
        low, high = (measure.interval.low, measure.interval.high) if measure.interval else (None, None)
        measured = (measure.value, low, high, measure.unit)
        for name, value in zip(_MEASURE, measured, strict=True):
            yield _measure_column(measure.name, name, one.label), value


def _measure_column(measure: str, suffix: str, label: str) -> str:
    return f"{measure.replace(' ', '_')}{suffix}_{label}"
