"""`medserve-train init FILE.csv`: its files load, and if a guess is ambiguous, an error names the flag to give."""

import csv
import io
import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medserve_training.commands.cli import main
from medserve_training.data.patient_data import load_cohort
from medserve_training.data.schema import Category, Number, Schema, load_schema
from medserve_training.data.splits import Patients
from medserve_training.recipes.recipe import SurvivalTask, load_recipe

ROWS = 60
OUTCOME = {
    "time": [str(17 * row % 900 + 10) for row in range(ROWS)],
    "event": [str(int(row % 3 == 0)) for row in range(ROWS)],
}
AGE = {"age": [str(20 + row * 7 % 60) for row in range(ROWS)]}

Init = Callable[..., tuple[Schema, str]]


def write_table(path: Path, columns: Mapping[str, Sequence[str]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter=delimiter)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))
    return path


def load(path: Path) -> tuple[Patients, Schema]:
    return load_cohort(load_recipe(str(path.with_suffix(".recipe.toml"))))


def start(path: Path, *flags: str) -> Schema:
    assert main(["init", str(path), *flags]) == 0
    return load(path)[1]


def refusal(path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """Returns the one-line error of a command that must leave no file behind."""
    before = sorted(path.parent.iterdir())
    assert main(["init", str(path), *flags]) == 1
    assert sorted(path.parent.iterdir()) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def feature(schema: Schema, name: str) -> Number | Category:
    (found,) = [feature for feature in schema.features if feature.name == name]
    return found


def test_each_kind_of_column_is_recognized(tmp_path: Path) -> None:
    columns = {
        "patient_id": [f"P{row:03}" for row in range(ROWS)],
        **AGE,
        "sex": ["FM"[row % 2] for row in range(ROWS)],
        "Marker (mg/dl)": ["" if row % 5 == 0 else f"{row * 0.13 - 1:.2f}" for row in range(ROWS)],
        "smoker": [str(row % 2) for row in range(ROWS)],
        "site": ["NA" if row % 4 == 0 else "None" for row in range(ROWS)],
        "hospital": ["St. Mary"] * ROWS,
        "remarks": [f"note {row}" for row in range(ROWS)],
        "empty": [""] * ROWS,
        "code": [str(10**20 + row) for row in range(ROWS)],
        "date of death": [f"2001-01-{row % 28 + 1:02}" for row in range(ROWS)],
        "follow-up [months]": [str(row % 40 + 1) for row in range(ROWS)],
        "vital status": ["deceased" if row % 3 else "alive" for row in range(ROWS)],
    }
    path = write_table(tmp_path / "patients.csv", columns)
    schema = start(path)
    assert (schema.outcome.time_column, schema.outcome.time_unit) == ("follow-up [months]", "months")
    assert (schema.outcome.event_column, schema.outcome.event_value) == ("vital status", "deceased")
    assert schema.outcome.censored_value == "alive"
    assert [found.name for found in schema.features] == ["age", "sex", "Marker (mg/dl)", "smoker", "site"]
    age, marker = feature(schema, "age"), feature(schema, "Marker (mg/dl)")
    assert isinstance(age, Number)
    assert (age.minimum, age.maximum, age.integer, age.unit) == (10, 90, True, "")
    assert isinstance(marker, Number)
    assert not marker.integer
    assert marker.minimum < -0.87 < 6.67 < marker.maximum
    smoker, site = feature(schema, "smoker"), feature(schema, "site")
    assert isinstance(smoker, Category)
    assert (smoker.categories, smoker.values) == (("0", "1"), (0, 1))
    assert isinstance(site, Category)
    assert site.values == ("NA", "None")
    assert set(schema.ignored_columns) == {"patient_id", "hospital", "remarks", "empty", "code", "date of death"}


def test_only_an_empty_cell_is_missing(tmp_path: Path) -> None:
    values = ["", "NA", "None", "NaN", "null"]
    path = write_table(tmp_path / "t.csv", {"stage": [values[row % 5] for row in range(ROWS)], **AGE, **OUTCOME})
    schema = start(path)
    stage = feature(schema, "stage")
    assert isinstance(stage, Category)
    assert set(stage.values) == {"NA", "None", "NaN", "null"}
    assert np.isnan(load(path)[0].features[:, 0]).sum() == ROWS / 5


def test_every_guess_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_table(tmp_path / "t.csv", {**AGE, "id": [f"x{row}" for row in range(ROWS)], **OUTCOME})
    assert main(["init", str(path)]) == 0
    told = capsys.readouterr().out
    lines = path.with_suffix(".toml").read_text(encoding="utf-8").splitlines()
    marked = set()
    for before, line in pairwise(lines):
        if before.startswith("#") and " = " in line:
            marked.add(line.partition(" = ")[0])
    assert {"time_column", "time_unit", "event_column", "event_value", "unit", "minimum", "integer"} <= marked
    assert "ignored_columns" in marked
    guesses = sum(line.startswith("# guess:") for line in lines)
    assert f"{path.with_suffix('.toml')}: check its {guesses} guesses" in told
    assert f"medserve-train fit {path.with_suffix('.recipe.toml')}" in told
    given = write_table(tmp_path / "given.csv", {**AGE, **OUTCOME})
    start(given, "--time", "time", "--event", "event", "--event-value", "0", "--time-unit", "months")
    text = given.with_suffix(".toml").read_text(encoding="utf-8").partition("[[features]]")[0]
    assert text.count("# guess:") == 1  # description of the event
    assert tomllib.loads(text)["outcome"]["event_value"] == 0


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["", "\ufeff"])
@pytest.mark.parametrize("sep_line", [False, True])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_kind_of_csv_gives_the_same_schema(
    tmp_path: Path, delimiter: str, head: str, newline: str, *, sep_line: bool
) -> None:
    path = write_table(tmp_path / "t.csv", {**AGE, **OUTCOME}, delimiter)
    text = path.read_bytes().decode().replace("\r\n", newline)
    path.write_bytes((head + (f"sep={delimiter}{newline}" if sep_line else "") + text).encode())
    schema = start(path)
    assert [found.name for found in schema.features] == ["age"]
    assert schema.outcome.time_column == "time"


@pytest.mark.parametrize(
    ("name", "seen", "other"),
    [
        ("event", "1", "0"),
        ("status", "2", "1"),
        ("dead", "yes", "no"),
        ("death", "True", "False"),
        ("cens", "1.0", "0.0"),
        ("vital_status", "Dead", "Alive"),
        ("OS_STATUS", "1:DECEASED", "0:LIVING"),
        ("censored", "0", "1"),
        ("is_alive", "FALSE", "TRUE"),
        ("relapse", "Y", "N"),
        ("eventObserved", "event", "no event"),
    ],
)
def test_the_event_is_found_by_name_and_values(tmp_path: Path, name: str, seen: str, other: str) -> None:
    cells = [seen if row % 3 == 0 else other for row in range(ROWS)]
    path = write_table(tmp_path / "t.csv", {**AGE, "time": OUTCOME["time"], name: cells})
    schema = start(path)
    assert (schema.outcome.event_column, str(schema.outcome.event_value)) == (name, seen)
    assert load(path)[0].events.tolist() == [row % 3 == 0 for row in range(ROWS)]


@pytest.mark.parametrize(
    ("name", "longest", "unit", "labels"),
    [
        ("time", 3000, "days", ["1 year", "3 years", "5 years"]),
        ("OS_MONTHS", 130, "months", ["1 year", "3 years", "5 years"]),
        ("survival_time", 13, "years", ["2 years", "5 years", "10 years"]),
        ("futime", 130, "months", ["1 year", "3 years", "5 years"]),
        ("followup_days", 220, "days", ["1 month", "3 months", "6 months"]),
        ("duration_years", 0.5, "years", ["1 month", "2 months", "3 months"]),
        ("days", 35, "days", ["7 days", "14 days", "28 days"]),
        ("time_days", 4, "days", ["3 days"]),
        ("time_years", 0.01, "years", ["0.009 years"]),
    ],
)
def test_unit_and_horizons_follow_from_the_times(
    tmp_path: Path, name: str, longest: float, unit: str, labels: list[str]
) -> None:
    times = [f"{longest * (row + 1) / ROWS:.5f}" for row in range(ROWS)]
    path = write_table(tmp_path / "t.csv", {**AGE, name: times, "event": OUTCOME["event"]})
    schema = start(path)
    assert (schema.outcome.time_column, schema.outcome.time_unit) == (name, unit)
    task = load_recipe(str(tmp_path / "t.recipe.toml")).task
    assert isinstance(task, SurvivalTask)
    assert [horizon.label for horizon in task.horizons] == labels
    assert (np.array([float(time) for time in times]) > task.horizons[-1].time).mean() >= 0.1


@pytest.mark.parametrize(
    ("columns", "flags", "words"),
    [
        ({**AGE, "event": OUTCOME["event"]}, (), ["no column", "follow-up time", "--time COLUMN"]),
        ({**AGE, "time": OUTCOME["time"]}, (), ["no column", "the event", "--event COLUMN"]),
        ({**AGE, **OUTCOME, "os_time": OUTCOME["time"]}, (), ["'time', 'os_time'", "--time COLUMN"]),
        ({**AGE, **OUTCOME, "dead": OUTCOME["event"]}, (), ["'event', 'dead'", "--event COLUMN"]),
        ({**AGE, **OUTCOME}, ("--time", "tiem"), ["--time 'tiem' is not a column", "'time'"]),  # codespell:ignore tiem
        ({**AGE, **OUTCOME}, ("--event", "dead"), ["--event 'dead' is not a column"]),
        ({**AGE, **OUTCOME}, ("--time", "event", "--event", "event"), ["both name 'event'"]),
        ({**AGE, **OUTCOME}, ("--event-value", "2"), ["--event-value '2'", "'0', '1'"]),
        ({**AGE, **OUTCOME}, ("--event", "age"), ["'age' contains 60 different values", "expected two"]),
        (
            {**AGE, "time": OUTCOME["time"], "event": ["ab"[row % 2] for row in range(ROWS)]},
            (),
            ["--event-value VALUE"],
        ),
        ({**AGE, "time": ["0", *OUTCOME["time"][1:]], "event": OUTCOME["event"]}, (), ["'0' in row 1"]),
        ({**AGE, "time": ["", *OUTCOME["time"][1:]], "event": OUTCOME["event"]}, ("--time", "time"), ["'' in row 1"]),
        ({**AGE, "time": OUTCOME["time"], "event": ["1", "", *OUTCOME["event"][2:]]}, (), ["is empty in row 2"]),
        ({**AGE, "time": ["1e300"] * 30 + ["5"] * 30, "event": OUTCOME["event"]}, (), ["'1e300' in row"]),
        (OUTCOME, (), ["no column remains as a covariate"]),
        ({"name": [f"N{row}" for row in range(ROWS)], **OUTCOME}, (), ['"name" identifies the row']),
        ({"age": AGE["age"]}, (), ["no column"]),
    ],
)
def test_an_ambiguous_table_is_rejected(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    columns: Mapping[str, Sequence[str]],
    flags: Sequence[str],
    words: Sequence[str],
) -> None:
    line = refusal(write_table(tmp_path / "t.csv", columns), capsys, *flags)
    assert line.startswith(f"medserve-train: {tmp_path}/t.csv: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected a header line"),
        (b"age,time,event\n", "at least one row"),
        (b"age,age,time,event\n1,2,3,1\n", "is there 2 times"),
        (b"age,time,event\n1,2\n", "2 cells, but the header has 3"),
        (b"age,time,event\n1,2,\xff\n", "is not UTF-8"),
        (b'age,time,event\n1,"2,1\n', "not well-formed CSV"),
        (b"sep=|\nage|time|event\n1|2|1\n", "names the delimiter"),
        (b"age\n1\n2\n", "no column is certain"),
        (b"age,time,event\n30,2,1\n", "contains 1 different values ('1'), expected two"),
    ],
)
def test_a_file_that_is_not_a_table_of_patients_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert words in refusal(path, capsys)


def test_a_missing_file_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is missing" in refusal(tmp_path / "t.csv", capsys)


@pytest.mark.parametrize("existing", ["t.toml", "t.recipe.toml"])
def test_no_file_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], existing: str) -> None:
    path = write_table(tmp_path / "t.csv", {**AGE, **OUTCOME})
    (tmp_path / existing).write_text("mine", encoding="utf-8")
    assert f"{existing} already exists" in refusal(path, capsys)
    assert (tmp_path / existing).read_text(encoding="utf-8") == "mine"


def test_a_recipe_that_cannot_be_written_leaves_no_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_table(tmp_path / "t.csv", {**AGE, **OUTCOME})
    (tmp_path / "t.recipe.toml").symlink_to("nowhere/t.recipe.toml")
    assert "t.recipe.toml cannot be written" in refusal(path, capsys)


def test_the_name_of_a_packaged_recipe_is_avoided(tmp_path: Path) -> None:
    path = write_table(tmp_path / "Breast cancer_risk.csv", {**AGE, **OUTCOME})
    start(path)
    assert load_recipe(str(tmp_path / "Breast cancer_risk.recipe.toml")).name == "breast-cancer-risk-own"


# Cells and names with edge cases of CSV, TOML and numbers.
ODD_TEXT = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("\"'\\#=[]{},;\t\n\r \x7f\x00.:%")), max_size=8
)
CELLS = st.one_of(
    ODD_TEXT,
    st.sampled_from(
        ["", "", "NA", "None", "nan", "inf", "1e400", "1_000", "1,5", "0x10", "yes", "no", "True", "-0", "01"]
    ),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
NAMES = st.one_of(
    ODD_TEXT, st.sampled_from(["time", "event", "OS_MONTHS", "status", "dead", "id", "age", "sex", "censored", "days"])
)
# Few distinct cells give categories and events, many give numbers and text.
COLUMN = st.lists(CELLS, min_size=1, max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> str:
    rows = draw(st.integers(0, 40))
    names = draw(st.sampled_from([NAMES, ODD_TEXT]))
    columns = draw(st.lists(st.tuples(names, COLUMN), max_size=5, unique_by=lambda column: column[0].strip()))
    if draw(st.booleans()):
        columns.append(("time", draw(st.lists(st.integers(1, 5000).map(str), min_size=5, max_size=5, unique=True))))
        columns.append(("event", draw(st.permutations(["0", "1"]))))
        columns.append(("\u03b1", draw(st.lists(st.floats(-1e9, 1e9).map(repr), min_size=9, max_size=9))))
    order = draw(st.randoms(use_true_random=False))
    text = io.StringIO(newline="")
    writer = csv.writer(
        text, delimiter=draw(st.sampled_from(",;\t")), lineterminator=draw(st.sampled_from(["\n", "\r\n"]))
    )
    writer.writerow([name for name, _ in columns])
    writer.writerows([order.choice(cells) for _, cells in columns] for _ in range(rows))
    return text.getvalue()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_any_table_is_rejected_in_one_line_or_gives_files_that_load(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(text.encode())
        status = main(["init", str(path)])
        captured = capsys.readouterr()
        if status == 0:
            patients, schema = load(path)
            assert load_schema(path.with_suffix(".toml")) == schema
            assert len(patients.times) == len(patients.features)
        else:
            assert status == 1
            assert captured.err.count("\n") == 1, captured.err
            assert [entry.name for entry in Path(folder).iterdir()] == ["t.csv"]
