import csv
from pathlib import Path

import pytest

from medserve_training.commands.cli import main
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import load_recipe
from medserve_training.studies.tune import Range, parse_space

# A small and short training.
FAST = ["--set", "training.epochs=1", "--set", "training.batch_size=256", "--set", "network.widths=[2, 2, 2]"]


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "digits-tune" / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_search_keeps_the_trial_with_the_lowest_validation_loss(tmp_path: Path) -> None:
    vary = ["--vary", "training.learning_rate=1e-4..1e-1", "--vary", "network.pooling=max,average"]
    assert main(["tune", "digits", *FAST, *vary, "--trials", "4", "--runs", str(tmp_path)]) == 0
    rows = trials(tmp_path)
    assert len(rows) == 4
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    recipe = load_recipe(str(tmp_path / "digits-tune" / "best.toml"))
    assert recipe.training.learning_rate == pytest.approx(float(best["training.learning_rate"]))
    assert recipe.network.name == "baseline-cnn"
    assert recipe.network.pooling == best["network.pooling"]
    assert recipe.training.epochs == 1
    # The recipe's own text is unchanged.
    assert "# The digits are 8 x 8" in (tmp_path / "digits-tune" / "best.toml").read_text(encoding="utf-8")


def test_a_grid_tries_every_combination_and_survives_one_that_diverges(tmp_path: Path) -> None:
    vary = ["--vary", "training.learning_rate=1e-3,1e30", "--vary", "network.dense=4,8"]
    sgd = ["--set", "training.optimizer=sgd"]
    assert main(["tune", "digits", *FAST, *sgd, *vary, "--grid", "--runs", str(tmp_path)]) == 0
    rows = trials(tmp_path)
    found = {(float(row["training.learning_rate"]), row["network.dense"]) for row in rows}
    assert found == {(1e-3, "4"), (1e-3, "8"), (1e30, "4"), (1e30, "8")}
    assert [row["validation_loss"] == "" for row in rows] == [row["training.learning_rate"] == "1e+30" for row in rows]


def test_a_space_is_read_as_toml() -> None:
    space = parse_space(["a.b=1..8", "c=1e-4..1e-2", "d=adam,adamw", "e=true,false", "f=1,2.5"])
    assert space == {
        "a.b": Range(1, 8),
        "c": Range(1e-4, 1e-2),
        "d": ("adam", "adamw"),
        "e": (True, False),
        "f": (1, 2.5),
    }


@pytest.mark.parametrize("text", ["a", "a=", "a=3..1", "a=x..y"])
def test_an_invalid_space_is_rejected(text: str) -> None:
    with pytest.raises(UserError, match=f"--vary {text}: expected"):
        parse_space([text])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "training.loss=cross-entropy,mean-absolute-error"], "different losses cannot be compared"),
        (["--vary", "training.learning_rate=1e-3..1e-2", "--grid"], "--grid requires values, not a range"),
        (["--vary", "training.epoch=1,2"], "training.epoch: no such key"),
    ],
)
def test_keys_that_cannot_be_searched_are_rejected(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "digits", *FAST, *arguments, "--runs", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
