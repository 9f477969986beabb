"""Pictures of a survival model's quality: curves by risk group against Kaplan-Meier, calibration at horizons."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sksurv.nonparametric import kaplan_meier_estimator

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.risk_metrics import reference_risk, risk_at
from medserve_training.splits import Patients, take

Floats = NDArray[np.float64]
_COLORS = ("tab:green", "tab:orange", "tab:red", "tab:purple", "tab:brown")
# Patients in one point of a calibration plot: fewer and it is noise.
_QUANTILES = 4


def plot_risk(survival: Floats, rows: Patients, split: str, task: pb.PatientRiskTask, folder: Path) -> list[Path]:
    """Writes risk_groups.png and calibration.png.

    Args:
        survival: Predicted, [n, curve times].
        rows: The patients.
        split: Its name.
        task: Times, horizons, risk groups.
        folder: Where to.

    Returns:
        The files written.
    """
    figures = {
        "risk_groups": _risk_groups(survival, rows, split, task),
        "calibration": _calibration(survival, rows, split, task),
    }
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def _risk_groups(survival: Floats, rows: Patients, split: str, task: pb.PatientRiskTask) -> Figure:
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axes, table = figure.subplots(2, height_ratios=[5, 1], sharex=True)
    group = np.digitize(reference_risk(survival, task), [group.risk_below for group in task.risk_groups])
    last = task.curve_times[-1]
    ticks = [0.0, *(horizon.time for horizon in task.horizons)]
    for index, (risk_group, color) in enumerate(zip(task.risk_groups, _COLORS, strict=False)):
        members = np.flatnonzero(group == index)
        if not len(members):
            continue
        patients = take(rows, members)
        times, alive, bounds = kaplan_meier_estimator(patients.events, patients.times, conf_type="log-log")
        inside = times <= last
        steps = np.concatenate([[0.0], times[inside]])
        axes.step(steps, np.concatenate([[1.0], alive[inside]]), where="post", color=color)
        axes.fill_between(times[inside], *bounds[:, inside], step="post", color=color, alpha=0.12, linewidth=0)
        mean = survival[members].mean(axis=0)
        label = f"{risk_group.label} risk, n = {len(members)}, {patients.events.sum()} events"
        axes.plot(task.curve_times, mean, color=color, linestyle="--", marker=".", label=label)
        for tick in ticks:
            table.text(tick, -index, str(int((patients.times >= tick).sum())), ha="center", va="center", color=color)
    axes.set(ylabel=f"no {task.event}", ylim=(0, 1.02), xlim=(0, last))
    axes.set_title(f"{split}, n = {len(rows.times)}: predicted (dashed) and Kaplan-Meier with 95 % band (steps)")
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)
    _at_risk(table, ticks, task)
    return figure


def _at_risk(axes: Axes, ticks: list[float], task: pb.PatientRiskTask) -> None:
    axes.set_title("patients at risk", loc="left", fontsize="medium")
    axes.set_ylim(-len(task.risk_groups) + 0.5, 0.5)
    axes.set_yticks([-index for index in range(len(task.risk_groups))], [group.label for group in task.risk_groups])
    labels = ["0", *(f"{horizon.label}\n({horizon.time:g})" for horizon in task.horizons)]
    axes.set_xticks(ticks, labels)
    axes.set_xlabel(f"time in {task.time_unit}")
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", left=False, pad=12)


def _calibration(survival: Floats, rows: Patients, split: str, task: pb.PatientRiskTask) -> Figure:
    figure = Figure(figsize=(4 * len(task.horizons), 4.6), layout="constrained")
    panels = figure.subplots(1, len(task.horizons), squeeze=False)[0]
    for axes, horizon in zip(panels, task.horizons, strict=True):
        risk = risk_at(survival, task, horizon.time)
        group = np.digitize(risk, np.quantile(risk, np.arange(1, _QUANTILES) / _QUANTILES))
        points = [_observed(risk, rows, group == index, horizon.time) for index in range(_QUANTILES)]
        predicted, observed, low, high = np.array(points).T
        axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
        axes.errorbar(predicted, observed, yerr=[observed - low, high - observed], fmt="o-", capsize=3)
        axes.set(xlabel="predicted risk", xlim=(0, 1), ylim=(0, 1), aspect="equal", title=f"by {horizon.label}")
    panels[0].set_ylabel("observed risk (1 - Kaplan-Meier)")
    figure.suptitle(f"Calibration, {split}, n = {len(rows.times)}, quarters by predicted risk, 95 % intervals")
    return figure


def _observed(risk: Floats, rows: Patients, members: NDArray[np.bool_], time: float) -> tuple[float, ...]:
    """Mean predicted risk, observed risk by `time` and the bounds of its 95 % interval."""
    times, alive, bounds = kaplan_meier_estimator(rows.events[members], rows.times[members], conf_type="log-log")
    before = np.searchsorted(times, time, side="right") - 1
    if before < 0:  # nobody has left yet
        return float(risk[members].mean()), 0.0, 0.0, 0.0
    low, high = 1 - bounds[1, before], 1 - bounds[0, before]
    return float(risk[members].mean()), float(1 - alive[before]), float(low), float(high)
