"""Parses TOML files into frozen dataclasses, with errors that name the key."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from medserve_training.errors import UserError

# No conversion of text to numbers, and no unknown keys.
STRICT = ConfigDict(strict=True, extra="forbid")

T = TypeVar("T")
# A non-empty TOML array, as a tuple.
Several = Annotated[tuple[T, ...], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def read_text(path: Path) -> str:
    """Reads a text file, with or without a byte order mark.

    Raises:
        UserError: The file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; save the file in UTF-8") from error


def parse_toml(text: str, source: str) -> dict[str, object]:
    """Parses TOML.

    Args:
        text: The file's content.
        source: Name of the file in error messages.

    Raises:
        UserError: The text is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source} is not a TOML file: {error}") from error


def toml_value(text: str) -> object:
    """Parses a TOML value; text that is not valid TOML is returned as is, so that quotes may be omitted."""
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value


def build(cls: type[T], values: Mapping[str, object], source: str) -> T:
    """Builds a dataclass tree from the tables of a TOML file.

    Args:
        cls: A pydantic dataclass configured with `STRICT`.
        values: The parsed file.
        source: Name of the file in error messages.

    Raises:
        UserError: Keys are unknown, missing or have invalid values; the message names all of them.
    """
    try:
        # Pydantic's strict mode accepts objects as dataclasses and arrays as tuples only from JSON.
        return TypeAdapter(cls).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        lines = [_describe(detail["loc"], detail["msg"], detail["input"]) for detail in error.errors()]
        raise UserError("\n".join([f"{source}:", *lines])) from error


def _describe(location: tuple[int | str, ...], message: str, value: object) -> str:
    key = ".".join(str(part) for part in location) or "the file as a whole"
    if message == "Unexpected keyword argument":
        return f"  {key}: no such key; remove it or correct its spelling"
    if isinstance(value, (str, int, float)):
        return f"  {key}: was {value!r}. {message}"
    return f"  {key}: {message}"
