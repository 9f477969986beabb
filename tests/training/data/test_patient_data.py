import re
from pathlib import Path

import numpy as np
import pytest
from sksurv.datasets import load_gbsg2

from medserve_training.data.covariates import describe
from medserve_training.data.patient_data import load_cohort, load_patients
from medserve_training.data.splits import fingerprint
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import load_recipe

SCHEMA = """
[outcome]
time_column = "days"
time_unit = "days"
event_column = "dead"
event_value = 1
censored_value = 0
description = "death"
"""
NUMBER = """
[[features]]
name = "{name}"
column = "{name}"
description = "a number"
unit = "mm"
minimum = 0
maximum = 100
"""
CATEGORY = """
[[features]]
name = "sex"
column = "sex"
description = "sex"
categories = ["female", "male"]
values = ["F", "M"]
required = true
"""


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    (tmp_path / "cohort.toml").write_text(
        SCHEMA + "".join(NUMBER.format(name=name) for name in "abc") + CATEGORY, encoding="utf-8"
    )
    lines = [f"{i % 90},{i % 7 if i % 5 else ''},{i % 3},{'FM'[i % 2]},{i + 1},{int(i % 4 == 0)}" for i in range(100)]
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join(["a,b,c,sex,days,dead", *lines]) + "\n", encoding="utf-8")
    return path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_gbsg_has_the_articles_covariates_in_their_order_and_coding() -> None:
    data, schema = load_patients(load_recipe("breast-cancer-risk"))
    assert [feature.name for feature in schema.features] == [
        "age",
        "menopause",
        "tumor_size",
        "grade",
        "positive_nodes",
        "progesterone_receptor",
        "estrogen_receptor",
        "hormone_therapy",
    ]
    rows = np.concatenate([part.features for part in (data.train, data.validation, data.test)])
    table, outcome = load_gbsg2()
    expected = [
        table.age.mean(),
        (table.menostat == "Post").mean(),
        table.tsize.mean(),
        ((table.tgrade == "II") + 2 * (table.tgrade == "III")).mean(),
        table.pnodes.mean(),
        table.progrec.mean(),
        table.estrec.mean(),
        (table.horTh == "yes").mean(),
    ]
    np.testing.assert_allclose(rows.mean(axis=0), expected, rtol=1e-5)
    assert [len(part.times) for part in (data.train, data.validation, data.test)] == [480, 103, 103]
    for part in (data.train, data.validation, data.test):
        assert part.events.mean() == pytest.approx(outcome["cens"].mean(), abs=0.005)


def test_the_seed_decides_the_split() -> None:
    first, again, other = (load_patients(load_recipe("article-risk", [f"seed={seed}"]))[0] for seed in (1, 1, 2))
    assert fingerprint(first.train) == fingerprint(again.train) != fingerprint(other.train)


def test_a_csv_is_read_by_its_schema(cohort: Path) -> None:
    data, schema = load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))
    rows = np.concatenate([part.features for part in (data.train, data.validation, data.test)])
    assert np.isnan(rows[:, 1]).sum() == 20
    assert rows[:, 3].mean() == 0.5
    covariates = describe(data.train, schema)
    np.testing.assert_allclose(covariates.replacements[1], np.nanmedian(data.train.features[:, 1]))
    assert np.isnan(covariates.replacements[3])
    assert (covariates.minimum[0], covariates.maximum[0]) == (
        data.train.features[:, 0].min(),
        data.train.features[:, 0].max(),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a,b,c", "a,b,weight", r"columns missing from the table: \['c'\]; columns not in the schema: \['weight'\]"),
        ("\n3,3,0,M", "\n300,3,0,M", r"cohort\.csv:5: column a: is 300, expected a number from 0 to 100 mm"),
        ("\n3,3,0,M", "\nabc,3,0,M", r"cohort\.csv:5: column a: 'abc' is not a number; an empty cell means missing"),
        ("\n3,3,0,M", "\n3,3,0,X", r"cohort\.csv:5: column sex: 'X' is not one of F, M"),
        ("\n3,3,0,M", "\n3,3,0,", r"cohort\.csv:5: column sex: is missing, but the schema requires it"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,0,0", r"cohort\.csv:5: column days: is 0, expected a time above 0 in days"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,1e39,0", "column days: is 1e[+]39, expected a time above 0 in days"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,1e-50,0", "column days: is 1e-50, expected a time above 0 in days"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,,0", "column days: is missing, expected a time above 0 in days"),
        (
            "\n3,3,0,M,4,0",
            "\n3,3,0,M,NA,0",
            "column days: 'NA' is not a number; an empty cell means missing, but a value",
        ),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,4,2", r"column dead: is '2', expected 1 \(event\) or 0 \(censored\)"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,4,yes", r"column dead: is 'yes', expected 1 \(event\) or 0 \(censored\)"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,4,True", r"column dead: is 'True', expected 1 \(event\) or 0 \(censored\)"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,4,", r"column dead: is missing, expected 1 \(event\) or 0 \(censored\)"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,4", "cohort.csv:5: 5 cells, but the header has 6"),
    ],
)
def test_an_invalid_value_in_a_csv_is_reported(cohort: Path, old: str, new: str, message: str) -> None:
    change(cohort, old, new)
    with pytest.raises(UserError, match=message):
        load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


def test_only_an_empty_cell_of_a_category_is_missing(tmp_path: Path) -> None:
    names = ["None", "NA", "null", "nan", "N/A", "1", "1.0"]
    category = f'[[features]]\nname = "kind"\ncolumn = "kind"\ndescription = "kind"\ncategories = {names}\n'
    schema = SCHEMA + category + f"values = {names}\n" + NUMBER.format(name="a")
    (tmp_path / "cohort.toml").write_text(schema, encoding="utf-8")
    cells = ["", *names] * 30
    lines = [f"{cell},{row % 90},{row + 1},{row % 2}" for row, cell in enumerate(cells)]
    (tmp_path / "cohort.csv").write_text("\n".join(["kind,a,days,dead", *lines]) + "\n", encoding="utf-8")
    patients, _ = load_cohort(load_recipe("breast-cancer-risk", data=f"csv:{tmp_path / 'cohort.csv'}"))
    np.testing.assert_array_equal(patients.features[:, 0], [np.nan, *range(len(names))] * 30)


@pytest.mark.parametrize(
    ("event", "censored", "cells"),
    [
        ("1", "0", ["1", "0"]),
        ("1", "0", ["1.0", "0.0"]),
        ("true", "false", ["True", "FALSE"]),
        ('"yes"', '"no"', ["yes", "no"]),
        ('"1.0"', '"0.0"', ["1.0", "0.0"]),
        ('"NA"', '"alive"', ["NA", "alive"]),
    ],
)
def test_events_are_spelled_as_in_the_schema(cohort: Path, event: str, censored: str, cells: list[str]) -> None:
    change(cohort.with_suffix(".toml"), "event_value = 1", f"event_value = {event}")
    change(cohort.with_suffix(".toml"), "censored_value = 0", f"censored_value = {censored}")
    text = cohort.read_text(encoding="utf-8")
    text = re.sub(r",([01])$", lambda match: f",{cells[match[1] == '0']}", text, flags=re.MULTILINE)
    cohort.write_text(text, encoding="utf-8")
    patients, _ = load_cohort(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))
    np.testing.assert_array_equal(patients.events, np.arange(100) % 4 == 0)


def test_an_integer_covariate_must_be_whole(cohort: Path) -> None:
    change(cohort.with_suffix(".toml"), "maximum = 100", "maximum = 100\ninteger = true")
    change(cohort, "\n3,3,0,M", "\n3.0,3,0,M")
    change(cohort, "\n4,4,1,F", "\n4.5,4,1,F")
    with pytest.raises(UserError, match=r"cohort\.csv:6: column a: is 4\.5, expected a whole number from 0 to 100 mm"):
        load_cohort(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('values = ["F", "M"]', 'values = ["F", "F"]', "'sex' has 'F' among its values"),
        ('values = ["F", "M"]', 'values = [1, "1"]', "'sex' has '1' among its values"),
        ('values = ["F", "M"]', 'values = ["F", ""]', "'sex' has '' among its values"),
        ('values = ["F", "M"]', 'values = ["F", " M"]', "'sex' has ' M' among its values"),
        ('categories = ["female", "male"]', 'categories = ["male", "male"]', "'sex' has 'male' among its categories"),
        ("maximum = 100", "maximum = 0", "'a' has minimum 0 and maximum 0"),
        ("maximum = 100", "maximum = inf", "'a' has minimum 0 and maximum inf"),
        ("maximum = 100", "maximum = nan", "'a' has minimum 0 and maximum nan"),
        ("maximum = 100", 'maximum = 1e30\ntransforms = [{ kind = "square" }]', "transform 'square' .* is too large"),
        (
            "maximum = 100",
            'maximum = 100\ntransforms = [{ kind = "exponential", parameter = 2 }]',
            "'a' may be 100, where the transform 'exponential' with parameter 2 is too large",
        ),
        ("censored_value = 0", "censored_value = 1", "event_value and censored_value are both 1"),
        ('event_column = "dead"', 'event_column = "days"', "time_column and event_column are both 'days'"),
        ('column = "a"', 'column = "days"', "'a' is read from a column of the outcome"),
        ('name = "b"', 'name = "a"', "two covariates are named 'a'"),
    ],
)
def test_a_contradictory_schema_is_rejected(cohort: Path, old: str, new: str, message: str) -> None:
    change(cohort.with_suffix(".toml"), old, new)
    with pytest.raises(UserError, match=message):
        load_cohort(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


@pytest.mark.parametrize("spec", ["csv:", "csv:.", "csv:/", "csv:missing.csv", "gbsg2", "csv"])
def test_a_spec_without_a_file_is_rejected(spec: str) -> None:
    with pytest.raises(UserError):
        load_cohort(load_recipe("breast-cancer-risk", data=spec))


def test_files_that_are_not_text_are_rejected(cohort: Path) -> None:
    cohort.with_suffix(".toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cohort\.toml: byte 0 is not UTF-8 text"):
        load_cohort(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))
    cohort.with_suffix(".toml").write_text(SCHEMA + NUMBER.format(name="a"), encoding="utf-8")
    cohort.unlink()
    cohort.mkdir()
    with pytest.raises(UserError, match=r"cohort\.csv: cannot be read: Is a directory"):
        load_cohort(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


def test_a_csv_requires_its_schema(cohort: Path) -> None:
    cohort.with_suffix(".toml").unlink()
    with pytest.raises(UserError, match=r"the schema .*cohort\.toml is missing"):
        load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


def test_an_unknown_key_in_a_schema_is_named(cohort: Path) -> None:
    change(cohort.with_suffix(".toml"), 'unit = "mm"', 'units = "mm"')
    with pytest.raises(UserError, match=r"units: no such key"):
        load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


def test_a_constant_covariate_is_rejected(cohort: Path) -> None:
    data, schema = load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))
    constant = data.train._replace(features=np.where(np.arange(4) == 2, np.float32(1), data.train.features))
    with pytest.raises(UserError, match="c: has fewer than two values"):
        describe(constant, schema)
