"""The page about cross-validation: JSON, tables in Markdown, a picture, and the figures that go into a manifest."""

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from matplotlib.figure import Figure as Picture
from rich.console import Console

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Recipe
from medserve_training.staging import Stage, require_writable, staged
from medserve_training.studies.crossval import Plan, Predictions, cross_validate, predict_external
from medserve_training.studies.crossval_figures import RESAMPLES, Figure, Figures, crossval_figures, external_figures
from medserve_training.studies.external_cohort import DESCRIPTION

_HEAD = """\
# Risk models, cross-validated and on an external cohort

Written by

    medserve-train crossval {names} --external

Everything that is learned from data is learned inside the training folds. Harrell's and Uno's concordance
(events up to 5 years, ranked by the risk at 5 years), the integrated Brier score (0 to 5 years, weighted by the
probability of censoring) and the AUC at 1, 3 and 5 years are means over folds, with the 95 % interval of Nadeau &
Bengio (2003). Calibration is that of all patients of a repeat together: slope and observed/expected at 1, 3 and 5
years, and the p-value of D-calibration (median over repeats). On the external cohort, all patients are one fold, and
censoring is weighted by its own distribution.

The clinical transforms were derived on these very patients (Sauerbrei & Royston 1999), so whatever uses them looks
better here than it is; the piecewise-linear encoding and the external cohort show how much. The settings of
breast-cancer-risk, about 40 of which were tried, were chosen by cross-validation on these patients too.

"""
_TITLES = {"cross-validation": "Cross-validation", "external": "External cohort"}


def crossval(
    recipes: Sequence[Recipe], plan: Plan, data_dir: Path, folder: Path, runs: Path, console: Console, *, external: bool
) -> None:
    """Cross-validates recipes beside baselines, and writes risk.json, risk.md and risk.png.

    Args:
        recipes: Of survival; the first is compared with the others and with the baselines.
        plan: Repeats, folds, processes.
        data_dir: Where rotterdam.csv lies.
        folder: Where to.
        runs: Where predictions.npz of each part goes.
        console: For progress.
        external: Whether to test on the external cohort too.

    Raises:
        UserError: The recipes do not belong together, or data is missing.
    """
    for place in (folder, runs):
        require_writable(place)
    predicted: dict[str, Predictions] = {}
    parts: dict[str, tuple[Figures, Figures]] = {}
    # First, since it may find its data missing.
    if external:
        predicted["external"] = predict_external(recipes, data_dir)
        parts["external"] = external_figures(predicted["external"])
    predicted["cross-validation"] = cross_validate(recipes, plan, console)
    parts = {"cross-validation": crossval_figures(predicted["cross-validation"], plan.folds)} | parts
    size = len(predicted["cross-validation"].patients.times)
    methods = {
        "cross-validation": f"{plan.repeats} x {plan.folds}-fold, stratified by event, seed {plan.seed}",
        "external": f"bootstrap, {RESAMPLES} resamples",
    }
    data = {"cross-validation": f"{recipes[0].data.description}, {size} patients", "external": DESCRIPTION}
    evaluations = [
        _evaluation(part, data[part], size, figures[recipes[0].name], methods[part])
        for part, (figures, _) in parts.items()
    ]
    content = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "recipe": _comparable(recipes[0]),
        "evaluations": [json_format.MessageToDict(entry, preserving_proto_field_name=True) for entry in evaluations],
        **{
            part: {
                "data": data[part],
                "method": methods[part],
                "figures": _plain(figures),
                "differences": _plain(pairs),
            }
            for part, (figures, pairs) in parts.items()
        },
    }
    lines = [
        line
        for part, (figures, pairs) in parts.items()
        for line in [f"## {_TITLES[part]}", "", f"{data[part]}; {methods[part]}.", "", *_tables(figures, pairs), ""]
    ]
    with staged() as stage:
        for part, predictions in predicted.items():
            _keep(predictions, runs / part, stage)
        page = stage.folder(folder)
        (page / "risk.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (page / "risk.md").write_text("\n".join([*_head(recipes), *lines]).rstrip() + "\n", encoding="utf-8")
        _picture(parts).savefig(page / "risk.png", dpi=110)


def read_evaluations(path: Path, recipe: Recipe) -> list[pb.Evaluation]:
    """The figures of a risk.json for a recipe's manifest.

    Raises:
        UserError: The file is missing or broken, or its figures are another recipe's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = content["recipe"] == _comparable(recipe)
        found = [json_format.ParseDict(entry, pb.Evaluation()) for entry in content["evaluations"]]
    except (OSError, ValueError, KeyError, TypeError, json_format.ParseError) as error:
        raise UserError(f"{path} is no risk.json of `medserve-train crossval`: {error}") from error
    if not same:
        raise UserError(f"{path} has figures of other settings than recipe {recipe.name!r}; run crossval again")
    return found


def _comparable(recipe: Recipe) -> dict[str, object]:
    """What decides a recipe's figures, as JSON has it."""
    values = dataclasses.asdict(recipe)
    kept = {"data": recipe.data.spec} | {key: values[key] for key in ("seed", "network", "training", "task")}
    plain: dict[str, object] = json.loads(json.dumps(kept))
    return plain


def _evaluation(split: str, data: str, size: int, figures: dict[str, Figure], method: str) -> pb.Evaluation:
    entry = pb.Evaluation(data=data, split=split, size=size)
    for name, figure in figures.items():
        metric = entry.metrics.add(name=name, value=figure.mean)
        # Calibration of repeats over the same patients has a range, and no interval.
        if figure.low < figure.high and (split == "external" or not name.startswith(("calibration", "observed"))):
            kind = "corrected resampled t (Nadeau & Bengio 2003), " if split == "cross-validation" else ""
            metric.interval.CopyFrom(pb.ConfidenceInterval(low=figure.low, high=figure.high, method=kind + method))
    return entry


def _keep(predictions: Predictions, folder: Path, stage: Stage) -> None:
    order = np.concatenate(predictions.folds)
    curves = {name: np.concatenate(folds) for name, folds in predictions.survival.items()}
    times, events = predictions.patients.times[order], predictions.patients.events[order]
    np.savez(
        stage.folder(folder) / "predictions.npz",
        allow_pickle=False,
        patient=order,
        times=times,
        events=events,
        **{f"survival {name}": survival for name, survival in curves.items()},
    )


def _plain(figures: Figures) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {
            key: {part: round(value, 5) for part, value in dataclasses.asdict(figure).items()}
            for key, figure in entry.items()
        }
        for name, entry in figures.items()
    }


def _head(recipes: Sequence[Recipe]) -> list[str]:
    return _HEAD.format(names=" ".join(recipe.name for recipe in recipes)).splitlines()


def _tables(figures: Figures, differences: Figures) -> list[str]:
    def mean(entry: dict[str, Figure], prefix: str, digits: int) -> str:
        return ", ".join(f"{figure.mean:.{digits}f}" for key, figure in entry.items() if key.startswith(prefix))

    def interval(figure: Figure, sign: str = "") -> str:
        return f"{figure.mean:{sign}.3f} ({figure.low:{sign}.3f} to {figure.high:{sign}.3f})"

    lines = [
        "| model | Harrell C | Uno C | Brier | AUC | slope | observed/expected | D-calibration p |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    compared = ("concordance_index", "concordance_index_uno", "integrated_brier_score")
    for name, entry in figures.items():
        cells = [name, *(interval(entry[key]) for key in compared), mean(entry, "auroc", 3)]
        cells += [mean(entry, "calibration_slope", 2), mean(entry, "observed_to_expected", 2)]
        lines.append(f"| {' | '.join([*cells, mean(entry, 'd_calibration_p', 2)])} |")
    first = next(iter(figures))
    lines += ["", f"| {first} minus | Harrell C | Uno C | Brier |", "| --- | --- | --- | --- |"]
    for name, entry in differences.items():
        lines.append(f"| {' | '.join([name, *(interval(entry[key], '+') for key in compared)])} |")
    return lines


def _picture(parts: dict[str, tuple[Figures, Figures]]) -> Picture:
    picture = Picture(figsize=(9, 1.2 + 1.9 * len(parts)), layout="constrained")
    panels = picture.subplots(len(parts), 2, squeeze=False)
    for row, (part, (figures, differences)) in zip(panels, parts.items(), strict=True):
        first = next(iter(figures))
        for axes, entries, title in (
            (row[0], figures, f"{_TITLES[part]}: Harrell's concordance"),
            (row[1], differences, f"{first} minus the others"),
        ):
            names = list(entries)[::-1]
            chosen = [entries[name]["concordance_index"] for name in names]
            means = np.array([figure.mean for figure in chosen])
            errors = [means - [figure.low for figure in chosen], [figure.high for figure in chosen] - means]
            axes.errorbar(means, range(len(names)), xerr=errors, fmt="o", capsize=3)
            axes.set_yticks(range(len(names)), names, fontsize="small")
            axes.set_title(title, fontsize="medium")
            axes.grid(alpha=0.3)
        row[1].axvline(0, color="0.4", linestyle=":")
    return picture
