"""`medserve describe`: prints a model's manifest as text or JSON."""

import json
from collections.abc import Iterator

from google.protobuf.json_format import MessageToDict
from rich.table import Table
from rich.text import Text

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import ExitCode
from medserve_client.client import Client
from medserve_client.results import ModelDescription
from medserve_proto.v1 import manifest_pb2


def describe(client: Client, model: str, version: str, *, as_json: bool, subgroups: bool) -> ExitCode:
    """Prints a model's manifest; the metrics of subgroups only with `subgroups`.

    With `as_json`, prints one document, `{"name", "version", "sha256", "manifest"}`, with the whole
    manifest under the field names of proto/medserve/v1/manifest.proto.
    """
    description = client.describe(model, version)
    console = terminal.output()
    if as_json:
        print(_json(description))  # noqa: T201 - unchanged, whatever the console width
        return ExitCode.OK
    for name, text in _paragraphs(description):
        if text:
            console.print(Text.assemble((f"{name}: ", "bold"), terminal.printable(text)))
    for table in _tables(description.manifest, subgroups=subgroups):
        if table.row_count:
            console.print()
            console.print(table)
    evaluations = description.manifest.evaluations
    if not subgroups and (count := sum(bool(one.subgroup and one.metrics) for one in evaluations)):
        console.print(f"\nMetrics of {count} subgroups: medserve describe --all")
    return ExitCode.OK


def _json(description: ModelDescription) -> str:
    manifest = MessageToDict(
        description.manifest, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    whole = {"name": description.name, "version": description.version, "sha256": description.sha256}
    return json.dumps(whole | {"manifest": manifest}, indent=2)


def _paragraphs(description: ModelDescription) -> Iterator[tuple[str, str]]:
    manifest = description.manifest
    yield "Model", f"{manifest.name}, version {description.version}"
    yield "Title", manifest.title
    yield "Description", manifest.description
    yield "Intended use", manifest.intended_use
    if manifest.HasField("image_classification"):
        yield from _image_paragraphs(manifest.image_classification)
    if manifest.HasField("image_segmentation"):
        yield from _segmentation_paragraphs(manifest.image_segmentation.input)
    if manifest.HasField("patient_risk"):
        yield "Event", manifest.patient_risk.event
    yield from _confidence_paragraphs(manifest)
    training = manifest.training
    yield "Trained", ", ".join(part for part in (training.recipe, training.data, training.date) if part)
    yield "License", manifest.license
    yield "SHA-256", description.sha256


def _confidence_paragraphs(manifest: manifest_pb2.Manifest) -> Iterator[tuple[str, str]]:
    """Yields the model's uncertainty and novelty measures, and the explanations that it supports."""
    task = getattr(manifest, manifest.WhichOneof("task") or "patient_risk")
    yield "Ensemble", f"{task.members} members" if task.members > 1 else ""
    if task.HasField("novelty"):
        novelty = task.novelty
        alarms = f"{novelty.false_alarms:.1%} of the validation split"
        yield "Unfamiliar", f"{novelty.method}, above {novelty.threshold:.4g} ({alarms})"
    if isinstance(task, manifest_pb2.ImageClassificationTask):
        size, layers = task.class_activation, [one.layer for one in task.feature_maps]
        maps = [f"class activation {size.height} x {size.width}"] if task.HasField("class_activation") else []
        yield "Reasons", "; ".join([*maps, "occlusion", *([f"feature maps of {', '.join(layers)}"] if layers else [])])
    if isinstance(task, manifest_pb2.PatientRiskTask):
        count = len(task.background)
        yield "Reasons", f"Shapley values against {count} patients; what-if" if count else "what-if"


def _image_paragraphs(task: manifest_pb2.ImageClassificationTask) -> Iterator[tuple[str, str]]:
    color = _color(task.input.color_space)
    crop = "center crop" if task.input.crop == manifest_pb2.CROP_CENTER else "stretched"
    yield "Input", f"{task.input.height} x {task.input.width} pixels, {color}; other aspect ratios: {crop}"
    yield "Labels", ", ".join(task.labels)
    yield "Decided by", task.default_operating_point or "the most probable label"


def _segmentation_paragraphs(task: manifest_pb2.SegmentationInput) -> Iterator[tuple[str, str]]:
    if task.HasField("tiling"):
        side = task.tiling.max_side
        yield "Input", f"any size, in tiles of up to {side} x {side} pixels, {_color(task.color_space)}"
    else:
        size = f"{task.fixed.height} x {task.fixed.width} pixels"
        yield "Input", f"{size}, {_color(task.color_space)}; other sizes: stretched"


def _color(color_space: manifest_pb2.ColorSpace.ValueType) -> str:
    return manifest_pb2.ColorSpace.Name(color_space).removeprefix("COLOR_SPACE_").lower()


def _tables(manifest: manifest_pb2.Manifest, *, subgroups: bool) -> Iterator[Table]:
    if manifest.HasField("image_classification"):
        yield _operating_points(manifest.image_classification)
    if manifest.HasField("image_segmentation"):
        yield _segmented_labels(manifest.image_segmentation)
    if manifest.HasField("patient_risk"):
        yield _features(manifest.patient_risk)
        yield _horizons(manifest.patient_risk)
        yield _risk_groups(manifest.patient_risk)
    yield from (_quality(one) for one in manifest.evaluations if subgroups or not one.subgroup)


def _operating_points(task: manifest_pb2.ImageClassificationTask) -> Table:
    table = terminal.table(
        "Operating points", "Name", "Decides for", "From", "Sensitivity", "Specificity", "Chosen on", whole=["Name"]
    )
    for point in task.operating_points:
        numbers = (f"{value:.4g}" for value in (point.threshold, point.sensitivity, point.specificity))
        table.add_row(*map(terminal.cell, (point.name, point.positive_label, *numbers, point.chosen_on)))
    return table


def _segmented_labels(task: manifest_pb2.ImageSegmentationTask) -> Table:
    columns = ("From", "Objects", "Smallest", "True count", "Measures", "Chosen on")
    table = terminal.table("Labels", "Name", *columns, whole=["Name"])
    for label in task.labels:
        cells = (
            label.name,
            f"{label.threshold:.4g}",
            _objects(label),
            f"{label.min_area_px} px",
            _count_error(label),
            ", ".join(_measure(one) for one in label.measures),
            label.chosen_on,
        )
        table.add_row(*map(terminal.cell, cells))
    return table


def _objects(label: manifest_pb2.SegmentedLabel) -> str:
    if label.largest_only:
        return "the largest area"
    return "separated where they touch" if label.HasField("marker_distance") else "connected areas"


def _count_error(label: manifest_pb2.SegmentedLabel) -> str:
    if not label.HasField("count_error"):
        return ""
    error = label.count_error
    return f"{error.low_ratio:.2f} to {error.high_ratio:.2f} of the count in {error.coverage:.0%} of images"


def _measure(one: manifest_pb2.Measure) -> str:
    return f"{one.name} ({one.bias_mm:+.2f} ± {one.agreement_mm:.2f} mm)"


def _features(task: manifest_pb2.PatientRiskTask) -> Table:
    table = terminal.table("Features", "Name", "Values", "In training", "If missing", "Meaning", whole=["Name"])
    for feature in task.features:
        values = (feature.name, _values(feature), _training_values(feature), _missing(feature), feature.description)
        table.add_row(*map(terminal.cell, values))
    return table


def _values(feature: manifest_pb2.Feature) -> str:
    if feature.HasField("categorical"):
        return ", ".join(feature.categorical.names)
    valid = feature.numeric
    whole = ", whole" if valid.integer else ""
    return f"{valid.valid_min:g} to {valid.valid_max:g} {feature.unit}".rstrip() + whole


def _training_values(feature: manifest_pb2.Feature) -> str:
    if feature.HasField("categorical"):
        return ""
    return f"{feature.numeric.training_min:g} to {feature.numeric.training_max:g}"


def _missing(feature: manifest_pb2.Feature) -> str:
    if not feature.HasField("imputed_as"):
        return "refused"
    if feature.HasField("categorical"):
        return feature.categorical.names[int(feature.imputed_as)]
    return f"{feature.imputed_as:g}"


def _horizons(task: manifest_pb2.PatientRiskTask) -> Table:
    table = terminal.table("Horizons", "Risk by", task.time_unit.capitalize() or "Time")
    for horizon in task.horizons:
        table.add_row(terminal.cell(horizon.label), f"{horizon.time:g}")
    return table


def _risk_groups(task: manifest_pb2.PatientRiskTask) -> Table:
    table = terminal.table("Risk groups", "Group", f"Risk by {task.reference_horizon}")
    low = 0.0
    for group in task.risk_groups:
        bounds = f"{low:.3g} to {group.risk_below:.3g}" if group.risk_below < 1 else f"{low:.3g} and above"
        table.add_row(terminal.cell(group.label), bounds)
        low = group.risk_below
    return table


def _quality(evaluation: manifest_pb2.Evaluation) -> Table:
    part = ", ".join(filter(None, (evaluation.split, evaluation.subgroup)))
    table = terminal.table(f"Metrics, {part} ({evaluation.size})", "Metric", "Value", "95 % interval")
    for metric in evaluation.metrics:
        interval = f"{metric.interval.low:.4f} to {metric.interval.high:.4f}" if metric.HasField("interval") else ""
        table.add_row(*map(terminal.cell, (metric.name, f"{metric.value:.4f}", interval)))
    methods = sorted({metric.interval.method for metric in evaluation.metrics if metric.interval.method})
    table.caption = terminal.cell("; intervals: ".join([evaluation.data, *methods]))
    table.caption_justify = "left"
    return table
