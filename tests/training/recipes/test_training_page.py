"""Compares the reference in docs/training.md with the dataclasses that parse schemas and recipes."""

import dataclasses
import re
import types
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt, Lt, MinLen
from pydantic.fields import FieldInfo

from medserve_training.data import schema
from medserve_training.init.toml_text import toml
from medserve_training.recipes import network_settings, recipe, segmentation_settings, training_settings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "training.md"

# The dataclass of each table of the page, by its heading.
SECTIONS: dict[str, type] = {
    "Schema": schema.Schema,
    "Schema: `[outcome]`": schema.EventValue,
    "Schema: `[[features]]`, a number": schema.Number,
    "Schema: `transforms` of a number": schema.Transform,
    "Schema: `[[features]]`, a category": schema.Category,
    "Recipe": recipe.Recipe,
    "Recipe: `[data]`": recipe.Data,
    'Recipe: `[task]`, `kind = "image-classification"`': recipe.ImageTask,
    'Recipe: `[task]`, `kind = "image-segmentation"`': segmentation_settings.SegmentationTask,
    "Recipe: `fixed` of a segmentation task": segmentation_settings.FixedSize,
    "Recipe: `tiling` of a segmentation task": segmentation_settings.Tiling,
    "Recipe: `measure` of a segmentation task": segmentation_settings.EllipseCircumference,
    'Recipe: `[task]`, `kind = "survival"`': recipe.SurvivalTask,
    "Recipe: `horizons` of a survival task": recipe.Horizon,
    'Recipe: `[task]`, `kind = "status"`': recipe.StatusTask,
    "Recipe: `[training]`": training_settings.Training,
    "Recipe: `[augmentation]`": training_settings.Augmentation,
    "Recipe: `[crops]`": segmentation_settings.Crops,
    "Recipe: `[segmentation_loss]`": segmentation_settings.SegmentationLoss,
    "Recipe: `[split]`": recipe.Split,
    "Recipe: `[calibration]`": recipe.Calibration,
    "Recipe: `[export]`": recipe.Export,
    "Recipe: `[manifest]`": recipe.Texts,
    "Recipe: `[card]`": recipe.CardTexts,
}  # fmt: skip
for network in (
    *get_args(network_settings.ImageNetworkSettings),
    network_settings.SegmentationNetworkSettings,
    *get_args(network_settings.RiskNetworkSettings),
):
    (name,) = network_settings.names(network)
    SECTIONS[f'Recipe: `[network]`, `name = "{name}"`'] = network


def type_words(annotation: object) -> str:
    """Returns the page's name of a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = arguments
        bounds = chain.from_iterable(entry.metadata if isinstance(entry, FieldInfo) else [entry] for entry in metadata)
        return type_words(inner) + "".join(bound_words(bound) for bound in bounds)
    if origin is Literal:
        return ", ".join(f"`{toml(choice)}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(entry) for entry in arguments if entry is not type(None)))
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        plural = re.sub(r"\b(text|number|table)\b", r"\1s", type_words(arguments[0]))
        return f"list of {count}{plural}"
    names: dict[object, str] = {str: "text", int: "whole number", float: "number", bool: "boolean"}
    return "table" if dataclasses.is_dataclass(annotation) else names[annotation]


def bound_words(bound: object) -> str:
    match bound:
        case Ge():
            return f" from {bound.ge}"
        case Gt():
            return f" above {bound.gt}"
        case Lt():
            return f", below {bound.lt}"
        case MinLen():
            return ", not empty"
        case _:
            return ""


def default_words(field: "dataclasses.Field[object]") -> str:
    if field.default is None:
        return "absent"
    if dataclasses.is_dataclass(field.default):
        return "absent" if field.default == type(field.default)() else "?"  # type: ignore[misc]
    return "required" if field.default is dataclasses.MISSING else f"`{toml(field.default)}`"


def rows(cls: type) -> list[tuple[str, str, str]]:
    """Returns key, type and default of each field; the page adds the meaning."""
    hints = get_type_hints(cls, include_extras=True)
    fields = dataclasses.fields(cls)
    return [(f"`{field.name}`", type_words(hints[field.name]), default_words(field)) for field in fields]


def reachable(annotation: object) -> Iterator[type]:
    """Returns the dataclasses in a type, and recursively those in the types of their fields."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
        for hint in get_type_hints(annotation, include_extras=True).values():
            yield from reachable(hint)
    for argument in get_args(annotation):
        yield from reachable(argument)


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_page_lists_every_key_with_its_type_and_default(heading: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    _, found, section = text.partition(f"\n### {heading}\n")
    assert found, f"docs/training.md has no heading '### {heading}'"
    lines = [line for line in section.partition("\n#")[0].splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert [tuple(row[:3]) for row in cells] == rows(SECTIONS[heading])
    assert all(len(row) == 4 and row[3] for row in cells)


def test_the_page_has_a_table_for_every_part_of_schema_and_recipe() -> None:
    assert set(reachable(schema.Schema)) | set(reachable(recipe.Recipe)) == set(SECTIONS.values())
    headings = re.findall(r"^### ((?:Schema|Recipe).*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == list(SECTIONS)
