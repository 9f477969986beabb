"""Shapley values and what-if curves as bar charts for a terminal."""

from collections.abc import Mapping

from rich.console import Group, RenderableType

from medserve_client.cli import terminal
from medserve_client.results import PatientResult, ShapleyValues, WhatIfCurve

_WIDTH = 24  # length of the longest bar in characters


def contributions(
    patient: str, values: Mapping[str, str], result: PatientResult, shapley: ShapleyValues
) -> RenderableType:
    """Renders Shapley values, largest first; bars point left for a decrease in risk and right for an increase.

    `values` has the cell of each feature.
    """
    risk = next(one.risk for one in result.risks if one.horizon == shapley.horizon)
    title = f"{patient}: {risk:.1%} by {shapley.horizon}, where the background's mean is {shapley.base_risk:.1%}"
    table = terminal.table("", "Feature", "Value", "Down", "Up", "Points", whole=["Down", "Up", "Points"])
    table.columns[2].justify = table.columns[4].justify = "right"
    longest = max(abs(one.value) for one in shapley.contributions) or 1.0
    for one in sorted(shapley.contributions, key=lambda one: -abs(one.value)):
        bar = "█" * round(_WIDTH * abs(one.value) / longest)
        down, up = ("", bar) if one.value > 0 else (bar, "")
        points = terminal.cell(f"{100 * one.value:+.1f}")
        feature, value = terminal.cell(one.feature), terminal.cell(values.get(one.feature, "").strip() or "missing")
        table.add_row(feature, value, terminal.cell(down, "blue"), terminal.cell(up, "red"), points)
    return Group(terminal.cell(title, "bold"), table)


def curve(patient: str, what_if: WhatIfCurve) -> RenderableType:
    """Renders the risk at each value of a feature."""
    title = f"{patient}: the risk by {what_if.horizon} with other values of {what_if.feature}"
    table = terminal.table("", what_if.feature, "", "Risk", whole=[what_if.feature, "", "Risk"])
    table.columns[2].justify = "right"
    highest = max(point.risk for point in what_if.points) or 1.0
    for point in what_if.points:
        value = point.value if isinstance(point.value, str) else f"{point.value:g}"
        bar = "█" * round(_WIDTH * point.risk / highest)
        table.add_row(terminal.cell(value), terminal.cell(bar, "red"), terminal.cell(f"{point.risk:.1%}"))
    return Group(terminal.cell(title, "bold"), table)
