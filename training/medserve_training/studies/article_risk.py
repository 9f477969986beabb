"""Reproduces the articles' risk result over many random splits, and shows the confounding of its label."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import t as student
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medserve_training.data.patient_data import load_patients
from medserve_training.recipes.network_settings import RiskNetworkSettings
from medserve_training.recipes.recipe import load_recipe
from medserve_training.staging import require_writable, staged
from medserve_training.training.train_risk import prepare_covariates, status_probabilities, train_status

ARTICLE_AUC = 0.717
ARTICLE_ACCURACY = 0.644

# Number of patients in a test and a training split.
_TEST, _TRAIN = 103, 480
# Inverse regularization strength of logistic regression on standardized columns.
_INVERSE_PENALTY = 0.1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Distribution of a figure over the splits; `percentile` is the percentage of splits below the articles' figure."""

    mean: float
    standard_deviation: float
    minimum: float
    maximum: float
    article: float | None = None
    percentile: float | None = None


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def article_risk(splits: int, folder: Path, console: Console) -> None:
    """Trains the recipe `article-risk` on many splits; writes article_risk.json and article_risk.png.

    The network's test AUC is compared with those of `status-projection`, of logistic regression on the same transforms,
    of a random forest, and of the negative follow-up time alone: the label "event seen" is confounded with the length
    of follow-up, so it can be predicted without any covariates.

    Args:
        splits: Number of random splits; the seed of split i, also for the weights, is i.
        folder: Output folder.
        console: Receives progress and the table.
    """
    require_writable(folder)
    fabric = Fabric(accelerator="cpu", devices=1)
    results = np.array(
        [
            _one_split(seed, fabric)
            for seed in track(range(splits), "splits", console=console, disable=not console.is_terminal)
        ],
    )
    aucs, accuracies, follow_up, ours, regression, forest = results.T
    spreads = {
        "auc": _spread(aucs, ARTICLE_AUC),
        "accuracy": _spread(accuracies, ARTICLE_ACCURACY),
        "auc_of_minus_follow_up_time": _spread(follow_up),
        "auc_of_status_projection": _spread(ours),
        "auc_of_logistic_regression": _spread(regression),
        "auc_of_random_forest": _spread(forest),
    }
    pairs = {"articles_cnn": aucs, "logistic_regression": regression, "random_forest": forest}
    differences = {name: _difference(ours - others) for name, others in pairs.items()} if splits > 1 else {}
    content = {
        "command": f"medserve-train article-risk --splits {splits}",
        "data": "GBSG, 686 patients, 70/15/15, stratified by event; test split of 103",
        "splits": splits,
        **{name: dataclasses.asdict(spread) for name, spread in spreads.items()},
        "status_projection_minus": {name: dataclasses.asdict(figure) for name, figure in differences.items()},
        "auc_by_split": [round(value, 6) for value in aucs.tolist()],
    }
    drawn = {
        "the articles' CNN": aucs,
        "a CNN over learned\nprojections": ours,
        "logistic regression": regression,
        "random forest": forest,
        "minus follow-up\ntime alone": follow_up,
    }
    with staged() as stage:
        page = stage.folder(folder)
        (page / "article_risk.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        _boxes(drawn).savefig(page / "article_risk.png", dpi=110)
    console.print(_table(spreads, splits))
    for name, pair in differences.items():
        text = f"{pair.mean:+.3f} ({pair.low:+.3f} to {pair.high:+.3f})"
        console.print(f"AUC of status-projection minus that of {name.replace('_', ' ')}: {text}")


def _one_split(seed: int, fabric: Fabric) -> tuple[float, ...]:
    """Returns test AUC and accuracy of the articles' network, and test AUCs of follow-up time and the other models."""
    data, schema = load_patients(load_recipe("article-risk", [f"seed={seed}"]))
    truth = data.test.events
    scores = []
    for name in ("article-risk", "status-projection"):
        members, _ = train_status(load_recipe(name, [f"seed={seed}"]), data, schema, fabric, Console(quiet=True))
        scores.append(status_probabilities(members, data.test)[:, 1])
    settings = cast("RiskNetworkSettings", load_recipe("status-projection").network)
    prepare = prepare_covariates(settings, data.train, schema)
    columns = data.map(lambda rows: prepare(torch.from_numpy(rows.features)).numpy())
    models = [
        LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000),
        RandomForestClassifier(n_estimators=300, min_samples_leaf=10, random_state=seed),
    ]
    scores += [model.fit(columns.train, data.train.events).predict_proba(columns.test)[:, 1] for model in models]
    article, *others = (float(roc_auc_score(truth, score)) for score in scores)
    accuracy = float(((scores[0] >= 0.5) == truth).mean())
    return (article, accuracy, float(roc_auc_score(truth, -data.test.times)), *others)


def _difference(values: Floats) -> Interval:
    """Returns the mean with the 95 % interval of Nadeau & Bengio (2003), which corrects for overlapping splits."""
    overlap = _TEST / _TRAIN
    half = float(student.ppf(0.975, len(values) - 1)) * values.std(ddof=1) * np.sqrt(1 / len(values) + overlap)
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def _spread(values: Floats, article: float | None = None) -> Spread:
    below = None if article is None else float((values < article).mean() * 100)
    low, high = float(values.min()), float(values.max())
    return Spread(float(values.mean()), float(values.std(ddof=min(1, len(values) - 1))), low, high, article, below)


def _table(spreads: dict[str, Spread], splits: int) -> Table:
    table = Table("figure", "mean", "sd", "range", "article", "its percentile", title=f"{splits} random splits, GBSG")
    for name, spread in spreads.items():
        article = "" if spread.article is None else f"{spread.article:.3f}"
        percentile = "" if spread.percentile is None else f"{spread.percentile:.0f}"
        bounds = f"{spread.minimum:.3f} to {spread.maximum:.3f}"
        row = (name.replace("_", " "), f"{spread.mean:.3f}", f"{spread.standard_deviation:.3f}", bounds)
        table.add_row(*row, article, percentile)
    return table


def _boxes(aucs: dict[str, Floats]) -> Figure:
    """Draws box plots of each model's test AUCs, with means, and whiskers of up to 1.5 interquartile ranges."""
    figure = Figure(figsize=(6.5, 3.4), layout="constrained")
    axes = figure.subplots()
    names = [f"{name}\nmean {values.mean():.3f}" for name, values in aucs.items()]
    axes.boxplot(list(aucs.values()), orientation="horizontal", tick_labels=names, widths=0.6, showmeans=True)
    axes.invert_yaxis()
    axes.axvline(ARTICLE_AUC, color="tab:red", linestyle="--", label=f"the articles' one split, {ARTICLE_AUC}")
    splits = len(next(iter(aucs.values())))
    axes.set(xlabel="test AUC (103 patients)", title=f"“Event seen” over {splits} random splits")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small")
    return figure
