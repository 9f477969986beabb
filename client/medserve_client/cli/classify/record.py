"""Records of `medserve classify`: one file's result as JSON or CSV."""

from collections.abc import Sequence
from dataclasses import asdict

from medserve_client.cli.classify.reason_maps import maps
from medserve_client.cli.images.outcomes import Outcome
from medserve_client.cli.images.results import FILE_COLUMNS, file_cells
from medserve_client.cli.results_file import csv_cell
from medserve_client.results import ImageResult, ModelDescription

_DECISION = ("label", "operating_point", "positive_label", "threshold")


def record(outcome: Outcome[ImageResult], model: ModelDescription, frame: int) -> dict[str, object]:
    """Returns the JSON document of a file, as specified by `medserve_client.cli.classify.command.classify`."""
    cells, result = file_cells(outcome, model, frame), outcome.result
    if result is None:
        return cells
    if result.sop_instance_uid:
        cells |= {"sop_instance_uid": result.sop_instance_uid}
    return (
        cells
        | {
            "decision": asdict(result.decision),
            "labels": [asdict(label) for label in result.labels],
            "warnings": [{"kind": one.kind.name.lower(), "message": one.message} for one in result.warnings],
            "uncertainty": result.uncertainty,
            "novelty": result.novelty,
        }
        | {kind: {"label": one.label, "values": one.values.tolist()} for kind, one in maps(result)}
    )


def csv_columns(labels: Sequence[str]) -> list[str]:
    """Returns the CSV columns that `csv_row` fills, for a model with these labels."""
    decision = ["decision", *_DECISION[1:]]
    return [
        *FILE_COLUMNS,
        *decision,
        *(f"probability_{label}" for label in labels),
        "uncertainty",
        "novelty",
        "warnings",
        "error",
    ]


def csv_row(outcome: Outcome[ImageResult], model: ModelDescription, frame: int) -> dict[str, object]:
    """Returns the CSV row of a file, by column: numbers with six decimals, empty cells for labels beyond the top k."""
    whole = record(outcome, model, frame)
    cells = dict.fromkeys(csv_columns(model.manifest.image_classification.labels), "")
    cells |= {name: csv_cell(whole.get(name)) for name in (*FILE_COLUMNS, "uncertainty", "novelty", "error")}
    if outcome.result is not None:
        decision = asdict(outcome.result.decision)
        cells |= {"decision" if name == "label" else name: csv_cell(decision[name]) for name in _DECISION}
        cells |= {f"probability_{one.label}": csv_cell(one.probability) for one in outcome.result.labels}
        cells["warnings"] = csv_cell("; ".join(one.message for one in outcome.result.warnings))
    return dict(cells)
