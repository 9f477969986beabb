import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medserve_training.commands.cli import main
from medserve_training.data.patient_data import load_cohort
from medserve_training.data.splits import take
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import SurvivalTask, load_recipe
from medserve_training.studies.crossval import Plan, Predictions, cross_validate
from medserve_training.studies.crossval_figures import crossval_figures, external_figures
from medserve_training.studies.crossval_report import read_evaluations
from medserve_training.studies.external_cohort import load_external

REPORT = Path(__file__).parents[3] / "benchmarks" / "risk.json"
SIZE = 250
"""Patients with synthetic predictions."""
QUICK = ["training.epochs=1", "training.members=1"]


def test_every_patient_is_predicted_once_per_repeat_by_models_not_trained_on_them() -> None:
    recipe = load_recipe("breast-cancer-risk", QUICK)
    found = cross_validate([recipe], Plan(repeats=1, folds=2, jobs=2), Console(quiet=True))
    assert np.sort(np.concatenate(found.folds)).tolist() == list(range(686))
    assert next(iter(found.survival)) == "breast-cancer-risk"
    assert len(found.survival) == 5
    for name, folds in found.survival.items():
        for test, curves in zip(found.folds, folds, strict=True):
            assert curves.shape == (len(test), 13), name
            assert (curves[:, 0] == 1).all()
            assert (np.diff(curves, axis=1) <= 0).all()
        # A model trained on the patients that it predicts, a forest above all, would rank them far better.
        harrell = crossval_figures(found, 2)[0][name]["concordance_index"].mean
        assert 0.55 < harrell < 0.75


def predictions(*, outside: bool = False) -> Predictions:
    """Two models that rank by the number of nodes, the second with noise."""
    recipe = load_recipe("breast-cancer-risk")
    assert isinstance(recipe.task, SurvivalTask)
    cohort, _ = load_cohort(recipe)
    patients = take(cohort, np.arange(SIZE))
    random = np.random.default_rng(0)
    order = np.arange(SIZE) if outside else random.permutation(SIZE)
    folds = [order] if outside else np.array_split(order, 5)
    rate = 0.1 * np.log(1 + patients.features[:, 4])
    times = np.arange(13) / 2
    good = np.exp(-np.outer(rate, times))
    worse = np.exp(-np.outer(rate * np.exp(random.normal(0, 3, SIZE)), times))
    curves = {name: [rows[fold] for fold in folds] for name, rows in (("good", good), ("worse", worse))}
    return Predictions(recipe.task, patients, folds, curves, outside)


def test_a_difference_is_that_of_the_means_with_intervals_corrected_for_overlap() -> None:
    figures, differences = crossval_figures(predictions(), 5)
    pair = differences["worse"]["concordance_index"]
    means = [figures[name]["concordance_index"].mean for name in ("good", "worse")]
    assert pair.mean == pytest.approx(means[0] - means[1])
    assert pair.low < pair.mean < pair.high
    # Nadeau & Bengio: the overlap of training folds widens the interval of five independent values by sqrt(1 + 5/4).
    spread = figures["good"]["concordance_index"]
    assert (spread.high - spread.mean) / spread.spread == pytest.approx(2.7764 * np.sqrt(1 / 5 + 1 / 4), rel=1e-3)


def test_an_external_cohort_has_bootstrap_intervals() -> None:
    figures, differences = external_figures(predictions(outside=True))
    for name in ("good", "worse"):
        entry = figures[name]["concordance_index"]
        assert entry.low < entry.mean < entry.high
    assert differences["worse"]["concordance_index"].low > 0


def test_metrics_are_written_only_to_the_manifest_of_their_recipe() -> None:
    found = read_evaluations(REPORT, load_recipe("breast-cancer-risk"))
    assert [entry.split for entry in found] == ["cross-validation", "external"]
    with pytest.raises(UserError, match="settings that differ from recipe 'breast-cancer-risk'"):
        read_evaluations(REPORT, load_recipe("breast-cancer-risk", ["training.epochs=9"]))


def test_a_file_that_is_not_a_report_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "risk.json"
    for content in ("{", json.dumps({"recipe": 1})):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"is not a risk\.json"):
            read_evaluations(path, load_recipe("breast-cancer-risk"))


def test_recipes_that_cannot_be_compared_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path), "--runs", str(tmp_path)]
    assert main(["crossval", "digits", *output]) == 1
    assert "crossval requires recipes with the task 'survival'" in capsys.readouterr().err
    assert main(["crossval", "breast-cancer-risk", "--external", "--data-dir", str(tmp_path), *output]) == 1
    assert "rotterdam.csv is missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_rotterdam_and_gbsg_are_converted_to_the_same_coding() -> None:
    folder = Path(os.environ.get("MEDSERVE_DATA", "data"))
    if not (folder / "rotterdam.csv").is_file():
        pytest.skip(f"{folder} has no rotterdam.csv; MEDSERVE_DATA names the folder")
    train, test, schema = load_external(folder)
    assert (len(train.times), len(test.times), len(schema.features)) == (1546, 686, 8)
    # Royston & Altman 2013: both cohorts are node-positive; GBSG has 299 events.
    assert min(train.features[:, 4].min(), test.features[:, 4].min()) == 1
    assert test.events.sum() == 299
    for rows in (train, test):
        assert not np.isnan(rows.features).any()
        assert set(np.unique(rows.features[:, 2])) == {0, 1, 2}
        assert set(np.unique(rows.features[:, 3])) == {0, 1}
