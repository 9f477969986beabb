"""The table of `medserve segment`: a row for each label of each image."""

from rich.table import Table

from medserve_client.cli import terminal
from medserve_client.cli.images.outcomes import Outcome
from medserve_client.results import ModelDescription
from medserve_client.segmentation.results import Interval, LabelResult, SegmentationResult


def result_table(model: ModelDescription) -> Table:
    """Returns an empty table with the columns that `add_rows` fills, without those that the model has no values for."""
    columns = ["File", "Label", "Count", "Area", "Share"]
    if _has_measures(model):
        columns.append("Measures")
    if _is_ensemble(model):
        columns.append("Uncertainty")
    return terminal.table(f"{model.name}, version {model.version}", *columns, "Notes")


def add_rows(table: Table, model: ModelDescription, outcome: Outcome[SegmentationResult]) -> None:
    """Adds the rows of a file's result, if it has one; what concerns the whole image is in the first."""
    if (result := outcome.result) is None:
        return
    uncertainty = "" if result.uncertainty is None else f"{result.uncertainty:.1%}"
    notes = "; ".join(warning.message for warning in result.warnings)
    for index, one in enumerate(result.labels):
        first = index == 0
        cells = [outcome.file.name if first else "", one.label, _count(one), _area(one), f"{one.area_share:.1%}"]
        if _has_measures(model):
            cells.append(_measures(one))
        if _is_ensemble(model):
            cells.append(uncertainty if first else "")
        table.add_row(*map(terminal.cell, [*cells, notes if first else ""]))


def _has_measures(model: ModelDescription) -> bool:
    return any(label.measures for label in model.manifest.image_segmentation.labels)


def _is_ensemble(model: ModelDescription) -> bool:
    return model.manifest.image_segmentation.members > 1


def _count(one: LabelResult) -> str:
    return f"{one.count:,}{_range(one.count_interval)}"


def _area(one: LabelResult) -> str:
    return f"{one.area_px:,} px" if one.area_mm2 is None else f"{_number(one.area_mm2)} mm²"


def _measures(one: LabelResult) -> str:
    return "; ".join(
        f"{measure.name} {_number(measure.value)} {measure.unit}{_range(measure.interval)}" for measure in one.measures
    )


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f" ({_number(interval.low)} to {_number(interval.high)})"


def _number(value: float) -> str:
    """Formats a number with four significant digits, or all digits before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
