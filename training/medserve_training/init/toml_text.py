"""Formats TOML with a comment above every guessed value."""

import re
import textwrap
from collections.abc import Mapping, Sequence

import tomlkit

from medserve_training.recipes.recipe import recipe_names

MARK = "# guess: "
# Line length of the comments.
_WIDTH = 118


def toml(value: object) -> str:
    """Formats a value as TOML on one line; mappings become inline tables."""
    match value:
        case Mapping():
            return "{ " + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(toml(entry) for entry in value) + "]"
        case _:
            return tomlkit.item(value).as_string()


def comment(text: str) -> str:
    """Formats a comment of one or more lines; names from the data must be quoted with `toml`, to escape newlines."""
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def table(header: str, values: Mapping[str, object], notes: Mapping[str, str] | None = None) -> str:
    """Formats a table.

    Args:
        header: E.g. "[outcome]"; "" for keys at the top of the file.
        values: Its keys in order. An array of mappings is written with one mapping per line.
        notes: For each guessed key, the reason for its value and what to check.
    """
    lines = [header] if header else []
    for key, value in values.items():
        if notes and key in notes:
            lines.append(comment(MARK.removeprefix("# ") + notes[key]))
        if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            lines += [f"{key} = [", *(f"    {toml(entry)}," for entry in value), "]"]
        else:
            lines.append(f"{key} = {toml(value)}")
    return "\n".join(lines) + "\n"


def recipe_name(stem: str) -> str:
    """Derives a recipe's name from the name of a file or folder: lower-case letters, digits and single hyphens.

    "-own" is appended to the name of a packaged recipe, so that training does not replace a model of the repository.
    """
    name = "-".join(re.findall(r"[a-z0-9]+", stem.lower())) or "model"
    return f"{name}-own" if name in recipe_names() else name
