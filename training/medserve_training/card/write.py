"""Assembles a model card and writes it next to its model file, as Markdown and as a single HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from jinja2 import Environment, PackageLoader, StrictUndefined

from medserve_training.card import (
    image_sections,
    origin_sections,
    quality_sections,
    risk_sections,
    segmentation_sections,
)
from medserve_training.card.parts import Card, Section, to_markdown
from medserve_training.data.masks.image import MaskedImages
from medserve_training.data.splits import Images, Patients, Splits
from medserve_training.export.remeasure import Measured
from medserve_training.recipes.recipe import ImageTask
from medserve_training.recipes.segmentation_settings import SegmentationTask

_WARNING = (
    "For research and teaching only. Not a medical device: its output must not be used for diagnosis or treatment."
)


def write_card(path: Path, measured: Measured, alarms: Mapping[str, float]) -> list[Path]:
    """Writes card.md and card.html into the folder of a model file.

    The output is reproducible: its only date is that of the manifest.

    Args:
        path: The model file, with the figures of the test split in its manifest.
        measured: Its results on validation and test.
        alarms: Fraction of images with a novelty warning, by data set.

    Returns:
        The written files.
    """
    card = _card(path, measured, alarms)
    page = Environment(
        loader=PackageLoader("medserve_training.card", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("card.html")
    texts = {"card.md": to_markdown(card), "card.html": page.render(card=card) + "\n"}
    written = []
    for name, text in texts.items():
        (path.parent / name).write_text(text, encoding="utf-8", newline="\n")
        written.append(path.parent / name)
    return written


def _card(path: Path, measured: Measured, alarms: Mapping[str, float]) -> Card:
    manifest = measured.fresh
    version = path.resolve().parent.name
    if isinstance(measured.recipe.task, ImageTask):
        images = cast("Splits[Images]", measured.data)
        interface, sizes = image_sections.interface(manifest), image_sections.sizes(manifest, images)
        found = image_sections.found(path, measured, images, alarms)
        limits = image_sections.limits(manifest, images)
    elif isinstance(measured.recipe.task, SegmentationTask):
        masked = cast("Splits[MaskedImages]", measured.data)
        interface, sizes = segmentation_sections.interface(manifest), segmentation_sections.sizes(manifest, masked)
        found = segmentation_sections.found(measured)
        limits = segmentation_sections.limits(manifest, masked)
    else:
        patients = cast("Splits[Patients]", measured.data)
        interface, sizes = risk_sections.interface(manifest), risk_sections.sizes(patients)
        found = risk_sections.found(path, measured, patients)
        limits = risk_sections.limits(manifest, patients)
    sections = [
        Section("Description and intended use", [manifest.description, manifest.intended_use, *interface]),
        origin_sections.data(measured, sizes),
        quality_sections.quality(manifest),
        *found,
        origin_sections.limits([*measured.recipe.card.limits, *limits]),
        origin_sections.recipe(measured.recipe),
        origin_sections.origin(path, manifest, measured.recipe),
    ]
    name = f"Model card of {manifest.name}" + (f", version {version}" if version.isdecimal() else "")
    return Card(manifest.title, name, _WARNING, sections)
