from pathlib import Path

import numpy as np
import pytest
from sksurv.datasets import load_gbsg2

from medserve_training.covariates import describe
from medserve_training.errors import UserError
from medserve_training.patient_data import load_patients
from medserve_training.recipe import load_recipe
from medserve_training.splits import fingerprint

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
        ("a,b,c", "a,b,weight", r"columns missing in the table: \['c'\]; columns unknown to the schema: \['weight'\]"),
        ("\n3,3,0,M", "\n300,3,0,M", "a: row 4 holds .*300.*, expected a number from 0 to 100 mm"),
        ("\n3,3,0,M", "\nabc,3,0,M", "a: row 4 holds 'abc'"),
        ("\n3,3,0,M", "\n3,3,0,X", r"sex: row 4 holds 'X', expected one of \['F', 'M'\]"),
        ("\n3,3,0,M", "\n3,3,0,", "sex: row 4 holds nan"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,0,0", "days: row 4 holds .*, expected a time above 0"),
        ("\n3,3,0,M,4,0", "\n3,3,0,M,4,2", r"dead: row 4 holds .*, expected 1 \(event\) or 0 \(censored\)"),
    ],
)
def test_a_wrong_value_in_a_csv_is_named(cohort: Path, old: str, new: str, message: str) -> None:
    change(cohort, old, new)
    with pytest.raises(UserError, match=message):
        load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


def test_a_csv_needs_its_schema(cohort: Path) -> None:
    cohort.with_suffix(".toml").unlink()
    with pytest.raises(UserError, match=r"the schema .*cohort\.toml is missing"):
        load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


def test_an_unknown_key_in_a_schema_is_named(cohort: Path) -> None:
    change(cohort.with_suffix(".toml"), 'unit = "mm"', 'units = "mm"')
    with pytest.raises(UserError, match=r"units: no such key"):
        load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))


def test_a_covariate_with_one_value_is_refused(cohort: Path) -> None:
    data, schema = load_patients(load_recipe("breast-cancer-risk", data=f"csv:{cohort}"))
    constant = data.train._replace(features=np.where(np.arange(4) == 2, np.float32(1), data.train.features))
    with pytest.raises(UserError, match="c: has fewer than two values"):
        describe(constant, schema)
