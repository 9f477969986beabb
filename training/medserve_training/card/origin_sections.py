"""Provenance sections of the card: data, recipe and file."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card.parts import Command, Points, Section, Table, percent
from medserve_training.export.remeasure import Measured
from medserve_training.recipes.recipe import Recipe
from medserve_training.recipes.segmentation_settings import SegmentationTask

# Reported in other sections of the card.
_ELSEWHERE = ("name", "seed", "data", "manifest", "card", "task", "export")


def data(measured: Measured, sizes: Table) -> Section:
    """Returns the section about the data, its fingerprint and its splits.

    Args:
        measured: The model and its data.
        sizes: A row for each split.
    """
    training = measured.fresh.training
    return Section(
        "Data",
        [
            f"{training.data}.",
            sizes,
            _cut(measured.recipe),
            (
                "The weights were fitted on the training split, and all choices made on training and validation; the "
                "test split was used once, by the command that wrote this card."
            ),
            f"SHA-256 of the training split's arrays: {training.data_sha256}",
        ],
    )


def _cut(used: Recipe) -> str:
    """Describes how the data was split."""
    split = used.split
    if not isinstance(used.task, SegmentationTask):
        return (
            "Predefined splits of the data set are used unchanged; the others are split off at random, stratified by "
            f"class or event, with seed {used.seed}: {percent(split.validation)} for validation, {percent(split.test)} "
            "for test."
        )
    if split.by == "image":
        return (
            f"Images were split at random with seed {used.seed}, also those of one group, which is optimistic: "
            f"{percent(split.validation)} for validation, {percent(split.test)} for test."
        )
    if split.test_groups:
        return (
            "The images of a group are in the same split; the recipe names the groups of validation "
            f"({', '.join(split.validation_groups)}) and test ({', '.join(split.test_groups)})."
        )
    return (
        f"The images of a group are in the same split; random groups were chosen with seed {used.seed}: about "
        f"{percent(split.validation)} of the images for validation, {percent(split.test)} for test."
    )


def recipe(used: Recipe) -> Section:
    """Returns the section that lists every setting of a recipe that has an effect."""
    segments = isinstance(used.task, SegmentationTask)
    without_effect = ("calibration.", "split.") if segments else ("segmentation_loss.", "split.by")
    rows = [
        (key, value)
        for key, value in _settings(dataclasses.asdict(used))
        if key.partition(".")[0] not in _ELSEWHERE
        and not key.startswith(without_effect)
        and value not in ("0", "0.0", "False", "None", "none", "")
    ]
    note = f"Recipe {used.name}, as packaged with this version of medserve-train. Settings not listed are off."
    return Section("Recipe", [Table(["setting", "value"], rows, note)])


def _settings(values: dict[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{key}.")
        elif isinstance(value, (tuple, list)):
            yield f"{prefix}{key}", ", ".join(str(entry) for entry in value)
        else:
            yield f"{prefix}{key}", f"{value:g}" if isinstance(value, float) else str(value)


def limits(texts: Sequence[str]) -> Section:
    """Returns the section about the model's limitations."""
    return Section("Limitations", [Points(texts)])


def origin(path: Path, manifest: pb.Manifest, used: Recipe) -> Section:
    """Returns the section about the file, the software that wrote it, and how to verify this card."""
    content = path.read_bytes()
    training = manifest.training
    packages = ", ".join(f"{name} {training.packages[name]}" for name in sorted(training.packages))
    rows = [
        ("file", f"{path.name}, {len(content):,} bytes"),
        ("SHA-256", hashlib.sha256(content).hexdigest()),
        ("license of the weights", manifest.license),
        ("training date", training.date),
        ("seed", str(training.seed)),
        ("packages", packages),
        ("largest difference between PyTorch and ONNX Runtime", f"{training.export_deviation:.1e}"),
    ]
    if manifest.HasField("quantization"):
        found = manifest.quantization
        change = f"{found.metric} {found.metric_before:.4f} before, {found.metric_after:.4f} after"
        rows.append(("8-bit integers", f"{found.method}; {change}; made from {found.source_sha256}"))
    spec = used.data.spec
    return Section(
        "The file",
        [
            Table(["", ""], rows),
            "This command recomputes every measured figure from the file and its data, without PyTorch:",
            Command(f"medserve-train verify {path.name} --data {spec}"),
        ],
    )
