"""The section of performance figures: all those of the manifest, with intervals."""

from collections.abc import Sequence

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card.parts import Block, Section, Table, interval

# Prefix of a metric's name, its title, and which direction is better. The first match wins.
_FIGURES = (
    ("auroc_macro", "AUROC, mean over the classes", "higher"),
    ("auroc", "AUROC", "higher"),
    ("accuracy_at_operating_point", "accuracy at the default threshold", "higher"),
    ("sensitivity_at_operating_point", "sensitivity at the default threshold", "higher"),
    ("specificity_at_operating_point", "specificity at the default threshold", "higher"),
    ("accuracy", "accuracy of the most probable label", "higher"),
    ("expected_calibration_error", "expected calibration error", "lower"),
    ("brier_score", "Brier score", "lower"),
    ("concordance_index_uno", "concordance (Uno)", "higher"),
    ("concordance_index", "concordance (Harrell)", "higher"),
    ("integrated_brier_score", "integrated Brier score", "lower"),
    ("calibration_slope", "calibration slope", "near 1"),
    ("observed_to_expected", "observed / expected events", "near 1"),
    ("average_precision_50_95", "average precision, mean over IoU 0.5 to 0.95", "higher"),
    ("average_precision_50", "average precision at IoU 0.5", "higher"),
    ("f1_50", "F1 at IoU 0.5", "higher"),
    ("panoptic_quality", "panoptic quality", "higher"),
    ("dice", "Dice coefficient", "higher"),
    ("intersection_over_union", "intersection over union (IoU)", "higher"),
    ("hausdorff_95_mm", "Hausdorff distance, 95th percentile, mm", "lower"),
    ("surface_distance_mm", "mean distance between surfaces, mm", "lower"),
    ("median_count_error", "relative error of the count, median", "lower"),
    ("mean_absolute_error_mm", "error of the measure, mean, mm", "lower"),
    ("median_absolute_error_mm", "error of the measure, median, mm", "lower"),
    ("absolute_error_95_mm", "error of the measure, 95th percentile, mm", "lower"),
    ("unfamiliar_among_failures", "failures with a warning", "higher"),
    ("unfamiliar_among_others", "other images with a warning", "lower"),
    ("d_calibration_p_value", "D-calibration, p-value", "above 0.05"),
)


def quality(manifest: pb.Manifest) -> Section:
    """Returns all figures: a column for each split, cross-validation and external cohort, then the subgroups."""
    whole = [entry for entry in manifest.evaluations if not entry.subgroup]
    names = list(dict.fromkeys(metric.name for entry in whole for metric in entry.metrics))
    rows = []
    for name in names:
        words, better = title(name)
        rows.append([words, *(_value(entry, name) for entry in whole), better])
    head = ["metric", *(f"{entry.split}, n = {entry.size:,}" for entry in whole), "better"]
    methods = {metric.interval.method for entry in whole for metric in entry.metrics if metric.HasField("interval")}
    note = f"In brackets: 95 % intervals ({'; '.join(sorted(methods))})." if methods else ""
    blocks: list[Block] = [Table(head, rows, note)]
    blocks.extend(f"{entry.split}: {entry.data}." for entry in whole if entry.data != manifest.training.data)
    blocks.extend(_subgroups(manifest))
    return Section("Performance", blocks)


def title(name: str) -> tuple[str, str]:
    """Returns the title of a metric, and which direction is better; the name of a label may precede its name."""
    label, colon, metric = name.rpartition(": ")
    for start, words, better in _FIGURES:
        if metric.startswith(start):
            time = metric.removeprefix(start).strip("_").replace("_", " ")
            return f"{label}{colon}{words}" + (f" by {time}" if time else ""), better
    return name.replace("_", " "), ""


def _subgroups(manifest: pb.Manifest) -> list[Block]:
    parts = [entry for entry in manifest.evaluations if entry.subgroup]
    if not parts:
        return []
    names = list(dict.fromkeys(metric.name for entry in parts for metric in entry.metrics))
    if manifest.HasField("patient_risk"):
        reference = manifest.patient_risk.reference_horizon.replace(" ", "_")
        wanted = ["concordance_index", f"auroc_{reference}", f"observed_to_expected_{reference}"]
        names = [name for name in wanted if name in names]
    rows = [[entry.subgroup, entry.split, f"{entry.size}", *_part(entry, names)] for entry in parts]
    head = ["subgroup", "split", "n", *(title(name)[0] for name in names)]
    note = (
        "Wide intervals can hide large differences: overlapping intervals do not show that the model performs equally "
        "in two subgroups. Subgroups with too few events for meaningful figures have none."
    )
    return ["Subgroups:", Table(head, rows, note)]


def _part(entry: pb.Evaluation, names: Sequence[str]) -> list[str]:
    if not entry.metrics:
        return ["too small", *[""] * (len(names) - 1)]
    return [_value(entry, name) for name in names]


def _value(entry: pb.Evaluation, name: str) -> str:
    for metric in entry.metrics:
        if metric.name == name:
            if metric.HasField("interval"):
                return interval(metric.value, metric.interval.low, metric.interval.high)
            return f"{metric.value:.3f}"
    return "—"
