"""Too little data is rejected in one line before training starts, and no file is written."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medserve_training.commands.cli import main
from medserve_training.data.data_checks import check_patients
from medserve_training.data.patient_data import load_patients
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import load_recipe
from samples.made_up_data import (
    QUICK,
    SCHEMA,
    SMALL_NETWORK,
    files_of,
    survival_recipe,
    survival_times,
    write_cohort,
    write_pictures,
)

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in an empty folder; returns its one-line error, or an empty string on success."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)

    def run(*arguments: str) -> str:
        status = main(arguments)
        error = capsys.readouterr().err
        if status == 0:
            assert error == ""
            return ""
        assert status == 1
        assert files_of(home) == {}
        assert re.fullmatch(r"medserve-train: .+\n", error), error
        return error

    return run


HALF = [True, False] * 150
TOO_FEW_PATIENTS = [
    (survival_times(20), HALF[:20], r"too few events in the training split: \d .* at least 10 in training, 5 in valid"),
    (survival_times(300), [False] * 300, "too few events in the training split: 0 "),
    (survival_times(300), [True] * 4 + [False] * 296, r"too few events in the training split: \d "),
    (survival_times(300), [True] * 299 + [False], "split off test .*: 1 censored, 299 with an event; about 14"),
    (survival_times(2), HALF[:2], "too few rows to split off test"),
    (survival_times(1), HALF[:1], "too few rows to split off test"),
    ([400, 3000] * 150, ([True] * 3 + [False]) * 75, "too few distinct event times in the training split: 1 "),
    (
        [900 - row for row in range(300)],
        HALF,
        "follow-up in the training split ends at 900 days, but the last horizon is at 1826",
    ),
    ([2000 + row for row in range(300)], HALF, "too few events in the training split: 0 "),
]


@pytest.mark.parametrize("command", ["fit", "tune"])
@pytest.mark.parametrize(("times", "events", "said"), TOO_FEW_PATIENTS)
def test_too_few_patients_are_rejected(
    run: Run, tmp_path: Path, command: str, times: list[float], events: list[bool], said: str
) -> None:
    recipe = survival_recipe(tmp_path, write_cohort(tmp_path, times, events))
    vary = ["--vary", "training.learning_rate=1e-3,1e-2"] if command == "tune" else []
    assert re.search(said, run(command, str(recipe), *vary))


@pytest.mark.parametrize(
    ("times", "events", "said"),
    [
        (survival_times(20), HALF[:20], "repeat 1, fold 1: "),
        (
            survival_times(300),
            [False] * 300,
            "fold 1: no event among the training patients up to the first horizon, 365",
        ),
        (survival_times(300), [True] * 4 + [False] * 296, "too few patients with an event: 4, with --folds 5"),
        (survival_times(300), [True] * 299 + [False], "too few patients censored: 1, with --folds 5"),
        (
            [400, 3000] * 150,
            ([True] * 3 + [False]) * 75,
            "no event among the training patients up to the first horizon",
        ),
        ([900 - row for row in range(300)], HALF, "patients ends at .* but the last horizon is at 1826"),
    ],
)
def test_too_few_patients_for_cross_validation_are_rejected(
    run: Run, tmp_path: Path, times: list[float], events: list[bool], said: str
) -> None:
    recipe = survival_recipe(tmp_path, write_cohort(tmp_path, times, events))
    assert re.search(said, run("crossval", str(recipe), "--repeats", "1"))


def test_too_few_patients_for_the_status_task_are_rejected(run: Run, tmp_path: Path) -> None:
    spec = write_cohort(tmp_path, survival_times(40), [True] * 37 + [False] * 3)
    assert re.search(
        r"too few patients without one in the \w+ split: [01]; at least 2 patients with an event and as many without",
        run("fit", "status-projection", "--data", spec),
    )


def test_a_constant_covariate_is_rejected_before_training(run: Run, tmp_path: Path) -> None:
    recipe = survival_recipe(tmp_path, write_cohort(tmp_path, survival_times(300), HALF, [7] * 300))
    assert "size: has fewer than two values in the training split; leave the covariate out" in run("fit", str(recipe))
    assert "size: has fewer than two values" in run("crossval", str(recipe), "--repeats", "1")


@pytest.mark.parametrize("command", ["fit", "tune", "repeat"])
@pytest.mark.parametrize(
    ("counts", "identical", "said"),
    [
        (
            [5, 5],
            False,
            r"too few images of class 'c\d' in the validation split: 1; at least 2 different .* about 14",
        ),
        ([1, 1], False, r"too few rows to split off test \(split.test = 0.15\): 1 c0, 1 c1; about 14 of each"),
        ([0, 40], False, "too few images of class 'c0' in the training split: 0; "),
        ([0, 0], False, "its class folders are empty"),
        ([3, 60], False, r"too few images of class 'c0' in the \w+ split: [01]; "),
        (
            [30, 30],
            True,
            "too few images of class 'c0' that are not also in validation or test in the training split: 0",
        ),
        ([40], False, r"labels are \['c0'\]; expected at least two different ones"),
    ],
)
def test_too_few_images_are_rejected(
    run: Run, tmp_path: Path, command: str, counts: list[int], identical: bool, said: str
) -> None:
    _, recipe = write_pictures(tmp_path, counts, identical=identical)
    vary = ["--vary", "training.learning_rate=1e-3,1e-2"] if command == "tune" else []
    if len(counts) == 1:  # errors in a recipe are listed by key, one per line
        assert main([command, str(recipe), *vary]) == 1
        return
    assert re.search(said, run(command, str(recipe), *vary))


def test_identical_training_images_of_a_data_set_with_predefined_splits_are_rejected(run: Run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 20), ("val", 10), ("test", 10)):
        labels = np.arange(number)[:, None] % 2
        arrays[f"{part}_labels"] = labels.astype(np.uint8)
        arrays[f"{part}_images"] = random.integers(0, 256, (number, 28, 28), dtype=np.uint8)
    arrays["train_images"][1::2] = 7
    np.savez(tmp_path / "pneumoniamnist.npz", allow_pickle=False, **arrays)
    line = run("fit", "chest-xray", "--data-dir", str(tmp_path))
    assert "all 10 images of class 'pneumonia' in the training split are identical; at least 2 different" in line


@pytest.mark.parametrize("number", [60, 70])
def test_the_minimum_of_patients_is_trained_and_evaluated(run: Run, tmp_path: Path, number: int) -> None:
    """Two covariates of which nearly every combination occurs; with 70 events, no patient is censored."""
    events = [number == 70 or row % 8 > 0 for row in range(number)]
    spec = write_cohort(tmp_path, survival_times(number), events, [row % 3 for row in range(number)])
    recipe = str(survival_recipe(tmp_path, spec))
    assert run("fit", recipe, *QUICK, "--accelerator", "cpu", "--output", str(tmp_path / "1")) == ""
    assert run("evaluate", str(tmp_path / "1" / "model.onnx"), "--data", spec, "--recipe", recipe) == ""
    assert (tmp_path / "1" / "card.md").is_file()


def test_the_minimum_of_images_is_trained_evaluated_and_quantized(run: Run, tmp_path: Path) -> None:
    spec, recipe = write_pictures(tmp_path, [14, 14])
    model = str(tmp_path / "1" / "model.onnx")
    assert run("fit", str(recipe), *SMALL_NETWORK, "--accelerator", "cpu", "--output", str(tmp_path / "1")) == ""
    assert run("evaluate", model, "--data", spec, "--recipe", str(recipe)) == ""
    # 20 training images and 64 synthetic ones: not a multiple of the batch size.
    quantize = ["quantize", model, "--data", spec, "--recipe", str(recipe), "--max-loss", "1"]
    assert run(*quantize, "--output", str(tmp_path / "int8" / "1")) == ""


cells = st.sampled_from(
    ["", "1", "0", "1.0", "F", "M", "NA", "50", "400", "2000", "1e400", "-1", '"', " ", "\u00e9", ";"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=5), max_size=6),
    number=st.integers(0, 120),
    seed=st.integers(0, 2**16),
    chance=st.floats(0, 1),
    scale=st.sampled_from([1, 100, 1600, 1e6]),
    header=st.sampled_from(
        ["size,sex,days,dead", "sep=,\nsize,sex,days,dead", "size,sex,days", "days,days,dead,sex,size"]
    ),
    recipe=st.sampled_from(["breast-cancer-risk", "breast-cancer-risk-cox", "status-projection"]),
)
def test_any_table_is_read_or_rejected(
    tmp_path: Path,
    rows: list[list[str]],
    number: int,
    seed: int,
    chance: float,
    scale: float,
    header: str,
    recipe: str,
) -> None:
    random = np.random.default_rng(seed)
    times, events = random.exponential(scale, number) + 1e-3, (random.random(number) < chance).astype(int)
    fine = [f"{random.integers(101)},{'FM'[row % 2]},{times[row]},{events[row]}" for row in range(number)]
    path = tmp_path / "cohort.csv"
    path.with_suffix(".toml").write_text(SCHEMA, encoding="utf-8")
    path.write_text("\n".join([header, *fine, *map(",".join, rows)]) + "\n", encoding="utf-8")
    chosen = load_recipe(recipe, data=f"csv:{path}")
    message, found = "", 0
    try:
        data, schema = load_patients(chosen)
        check_patients(data, chosen, schema)
        found = int(data.train.events.sum())
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert message or (found >= 2 and header.endswith("size,sex,days,dead"))
