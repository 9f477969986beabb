"""The columns of a CSV file as text, and properties of their cells and names."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medserve_training.data.csv_table import parse_number, read_csv

# The cells of each column by name, without surrounding spaces; "" is a missing value.
Columns = dict[str, list[str]]


def read_columns(path: Path) -> Columns:
    """Reads a CSV file as training does; columns without a name are merged into one empty column.

    Raises:
        UserError: The file is not a table, or two columns have the same name.
    """
    table = read_csv(path)
    named = {name: table.column(name) for name in table.columns if name}
    return named | ({"": [""] * len(table.rows)} if "" in table.columns else {})


def is_number(cell: str) -> bool:
    """Returns whether training parses a cell as a number."""
    try:
        parse_number(cell, required=True)
    except ValueError:
        return False
    return True


def numbers(cells: list[str]) -> NDArray[np.float64] | None:
    """Returns the cells as float64 [n], NaN where missing; None if all are missing or one is not a number."""
    present = [cell for cell in cells if cell]
    if not present or not all(is_number(cell) for cell in present):
        return None
    return np.array([float(cell) if cell else np.nan for cell in cells])


def words(name: str) -> list[str]:
    """Splits a name into lower-case words; "osMonths", "OS_MONTHS" and "os (months)" give the same."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z0-9]+", split.lower())
