"""Plots of a survival model's performance: risk groups against Kaplan-Meier, calibration, AUC and Brier score."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sksurv.metrics import brier_score, cumulative_dynamic_auc
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.splits import Patients, take
from medserve_training.metrics.risk import reference_risk, risk_at
from medserve_training.metrics.risk_calibration import censor_after
from medserve_training.plots.style import STYLE

Floats = NDArray[np.float64]
# Color and marker of the risk groups, from low to high.
_LOOKS = (("C0", "o"), ("C4", "s"), ("C1", "^"), ("C3", "D"), ("C2", "v"))
# Number of points in a calibration plot; with more, each has too few patients.
_QUANTILES = 4


def plot_risk(survival: Floats, rows: Patients, split: str, task: pb.PatientRiskTask, folder: Path) -> list[Path]:
    """Writes risk_groups.png and, for each horizon, calibration_<time>.png.

    Args:
        survival: Predicted survival functions, [n, curve times].
        rows: The patients.
        split: Name of the split.
        task: Specifies times, horizons and risk groups.
        folder: Output folder.

    Returns:
        The written files.
    """
    paths = []
    with rc_context(STYLE):
        for name, figure in quality_figures(survival, rows, split, task).items():
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=160)
            paths.append(path)
    return paths


def quality_figures(survival: Floats, rows: Patients, split: str, task: pb.PatientRiskTask) -> dict[str, Figure]:
    """Returns these plots by name, legible on a phone; arguments as for `plot_risk`."""
    figures = {"risk_groups": _risk_groups(survival, rows, split, task)}
    for horizon in task.horizons:
        risk = risk_at(survival, task, horizon.time)
        figures[f"calibration_{horizon.time:g}"] = _calibration(risk, rows, split, horizon)
    return figures


def _risk_groups(survival: Floats, rows: Patients, split: str, task: pb.PatientRiskTask) -> Figure:
    figure = Figure(figsize=(5, 5.2), layout="constrained")
    axes, table = figure.subplots(2, height_ratios=[5, 1], sharex=True)
    group = np.digitize(reference_risk(survival, task), [group.risk_below for group in task.risk_groups])
    last = task.curve_times[-1]
    ticks = [0.0, *(horizon.time for horizon in task.horizons)]
    for index, (risk_group, (color, marker)) in enumerate(zip(task.risk_groups, _LOOKS, strict=False)):
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
        axes.plot(task.curve_times, mean, color=color, linestyle="--", marker=marker, markersize=4, label=label)
        for tick in ticks:
            table.text(tick, -index, str(int((patients.times >= tick).sum())), ha="center", va="center")
    axes.set(ylabel=f"no {task.event}", ylim=(0, 1.02), xlim=(0, last))
    axes.set_title(f"{split}, n = {len(rows.times)}\ndashed: predicted; steps: Kaplan-Meier, 95 % band")
    axes.legend(loc="lower left", fontsize="small")
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


def _calibration(risk: Floats, rows: Patients, split: str, horizon: pb.Horizon) -> Figure:
    figure = Figure(figsize=(3.6, 3.9), layout="constrained")
    axes = figure.subplots()
    group = np.digitize(risk, np.quantile(risk, np.arange(1, _QUANTILES) / _QUANTILES))
    points = [_observed(risk, rows, group == index, horizon.time) for index in np.unique(group)]
    predicted, observed, low, high = np.array(points).T
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    axes.errorbar(predicted, observed, yerr=[observed - low, high - observed], fmt="o-", capsize=3)
    axes.set(xlabel="predicted risk", ylabel="observed risk (1 - Kaplan-Meier)", xlim=(0, 1), ylim=(0, 1))
    axes.set(aspect="equal", title=f"Risk by {horizon.label}, {split}, n = {len(risk)}")
    return figure


def over_time(
    survival: Floats, train: Patients, rows: Patients, split: str, task: pb.PatientRiskTask
) -> dict[str, Figure]:
    """Plots cumulative/dynamic AUC ("auroc") and Brier score ("brier") at the curve's times up to the last horizon.

    Args:
        survival: Predicted survival functions, [n, curve times].
        train: Patients from which the censoring distribution is estimated.
        rows: The patients of the predictions.
        split: Name of the split.
        task: Specifies times and horizons.
    """
    end = max(horizon.time for horizon in task.horizons)
    train, rows = censor_after(end, train), censor_after(end, rows)
    outcomes = Surv.from_arrays(train.events, train.times), Surv.from_arrays(rows.events, rows.times)
    # The AUC is undefined before the first event and after the end of follow-up.
    first, last = rows.times[rows.events].min(), min(rows.times.max(), train.times.max())
    columns = [index for index, time in enumerate(task.curve_times) if first < time <= end and time < last]
    times = np.array(task.curve_times)[columns]
    areas = cumulative_dynamic_auc(*outcomes, 1 - survival[:, columns], times)[0]
    scores = brier_score(*outcomes, survival[:, columns], times)[1]
    known, alive = kaplan_meier_estimator(train.events, train.times)
    same = np.concatenate([[1.0], alive])[np.searchsorted(known, times, side="right")]
    reference = brier_score(*outcomes, np.tile(same, (len(rows.times), 1)), times)[1]
    lines = {
        "auroc": ("AUC", {"model": areas, "chance": np.full(len(times), 0.5)}),
        "brier": ("Brier score", {"model": scores, "Kaplan-Meier of training": reference}),
    }
    return {name: _lines(times, *content, f"{split}, n = {len(rows.times)}", task) for name, content in lines.items()}


def _lines(times: Floats, what: str, lines: dict[str, Floats], title: str, task: pb.PatientRiskTask) -> Figure:
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for (name, values), style in zip(lines.items(), ("C0o-", "C1:"), strict=True):
        axes.plot(times, values, style, markersize=4, label=name)
    axes.set(xlabel=f"time in {task.time_unit}", ylabel=what, title=f"{what} by time, {title}", xlim=(0, None))
    axes.set_ylim(*((0.4, 1) if what == "AUC" else (0, None)))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _observed(risk: Floats, rows: Patients, members: NDArray[np.bool_], time: float) -> tuple[float, ...]:
    """Returns mean predicted risk, observed risk by `time` and the bounds of its 95 % interval."""
    times, alive, bounds = kaplan_meier_estimator(rows.events[members], rows.times[members], conf_type="log-log")
    before = np.searchsorted(times, time, side="right") - 1
    if before < 0:  # no event or censoring by then
        return float(risk[members].mean()), 0.0, 0.0, 0.0
    low, high = 1 - bounds[1, before], 1 - bounds[0, before]
    return float(risk[members].mean()), float(1 - alive[before]), float(low), float(high)
