"""The `medserve risk` command: CSV output with one row for each input row."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from medserve_client.cli import main

Captured = pytest.CaptureFixture[str]
Run = Callable[[str | bytes], tuple[int, list[list[str]], list[str]]]


@pytest.fixture
def run(clinic: str, tmp_path: Path, capsys: Captured) -> Run:
    """Runs the command on a file with this text; returns the exit status, the output rows and the lines on stderr."""
    path = tmp_path / "patients.csv"

    def run(text: str | bytes) -> tuple[int, list[list[str]], list[str]]:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        status = main(["--server", clinic, "risk", str(path)])
        captured = capsys.readouterr()
        errors = captured.err.replace(f"{path}", "FILE").splitlines()
        return status, list(csv.reader(captured.out.splitlines())), errors

    return run


def test_columns_are_kept_and_risks_appended(run: Run) -> None:
    status, rows, errors = run("id,age,tumor_size,grade\n007,40,,II\n")
    assert status == 0
    assert rows == [
        ["id", "age", "tumor_size", "grade", "risk_1_year", "risk_5_years", "risk_group", "warnings", "error"],
        [
            *("007", "40", "", "II", "0.125000", "0.500000", "high"),
            "age number 40; tumor_size missing; grade category II",
            "",
        ],
    ]
    assert errors == ["FILE: copied, not features of relapse: id"]


def test_invalid_rows_are_reported_and_the_rest_is_scored(run: Run) -> None:
    status, rows, errors = run(
        "age,tumor_size,grade\n"  # line 1
        "40,20,I\n"
        "130,500,I\n"
        "old,20,I\n"
        "\n"
        '41,20,"I\n"\n'  # lines 6 and 7
        "42,20\n"
        "43,20,I,more\n"
        '"44","20","I"\n'
    )
    assert status == 1
    assert [(row[0], row[3], row[-1] != "") for row in rows[1:]] == [
        ("40", "0.125000", False),
        ("130", "", True),
        ("old", "", True),
        ("41", "0.125000", False),
        ("42", "", True),
        ("43", "", True),
        ("44", "0.125000", False),
    ]
    assert errors == [
        "FILE:3: column age: 130 is not from 0 to 120",
        "FILE:3: column tumor_size: 500 is not from 0 to 120",
        "FILE:4: column age: 'old' is not a number; an empty cell means missing, but a value is required here",
        "FILE:8: 2 cells, but the header has 3",
        "FILE:9: 4 cells, but the header has 3",
    ]


def test_each_input_row_has_one_output_row(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    path, output = tmp_path / "patients.csv", tmp_path / "risks.csv"
    ages = [130 if index % 100 == 50 else index % 90 for index in range(1000)]
    path.write_text("id,age,tumor_size,grade\n" + "".join(f"{index},{age},20,I\n" for index, age in enumerate(ages)))
    assert main(["--server", clinic, "risk", str(path), "-o", str(output)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(index) for index in range(1000)]
    for row, age in zip(rows, ages, strict=True):
        if age == 130:
            assert (row["error"], row["risk_1_year"]) == ("column age: 130 is not from 0 to 120", "")
        else:
            assert row["error"] == ""
            assert row["warnings"].startswith(f"age number {age};")
    assert captured.err.count("column age: 130") == 10


@pytest.mark.parametrize("name", ["patients.csv", "link.csv", "hard.csv"])
def test_the_file_that_is_read_is_not_overwritten(clinic: str, tmp_path: Path, capsys: Captured, name: str) -> None:
    path, text = tmp_path / "patients.csv", "age,tumor_size,grade\n40,20,I\n"
    path.write_text(text)
    (tmp_path / "link.csv").symlink_to(path)
    (tmp_path / "hard.csv").hardlink_to(path)
    assert main(["--server", clinic, "risk", str(path), "-o", str(tmp_path / name)]) == 2
    assert f"-o {tmp_path / name}: " in capsys.readouterr().err
    assert path.read_text() == text


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_a_byte_order_mark_are_recognized(
    clinic: str, tmp_path: Path, capsys: Captured, delimiter: str
) -> None:
    path = tmp_path / "patients.csv"
    lines = [["age", "tumor_size", "grade", "notes, in; words"], ["40", "20.5", "I", "a, b; c, d; e"]]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(lines)
    assert main(["--server", clinic, "risk", str(path)]) == 0
    header, row = csv.reader(capsys.readouterr().out.splitlines(), delimiter=delimiter)
    assert (header[:4], row[:4]) == (lines[0], lines[1])
    assert row[-2] == "age number 40; tumor_size number 20.5; grade category I"


def test_a_decimal_comma_is_explained(run: Run) -> None:
    status, _, errors = run("age;tumor_size;grade\n40;20,5;I\n")
    assert status == 1
    assert errors == ["FILE:2: column tumor_size: '20,5' is not a number; write it with a decimal point"]


@pytest.mark.parametrize("text", ["nan", "inf", "NA", "N/A", "."])
def test_an_invalid_number_is_reported(run: Run, text: str) -> None:
    status, _, errors = run(f"age,tumor_size,grade\n40,{text},I\n")
    assert status == 1
    assert errors == [f"FILE:2: column tumor_size: '{text}' is not a number; an empty cell means missing"]


def test_a_feature_without_a_column_is_reported_once(run: Run) -> None:
    status, rows, errors = run("age,grade\n40,I\n41,I\n")
    assert (status, len(rows)) == (0, 3)
    assert errors == ["FILE: no column, so missing for all patients: tumor_size"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "age,tumour_size\n40,20\n",
            "column tumour_size is not a feature of relapse; if it is tumor_size, rename it",
        ),
        ("Age,tumor_size\n40,20\n", "column Age is not a feature of relapse; if it is age, rename it"),
        ("age,age\n40,20\n", "column age is there 2 times; keep one"),
        ("tumor_size,grade\n20,I\n", "relapse needs a column for age"),
        ("a,b\n20,I\n", "no column is a feature of relapse; its features are age, tumor_size, grade"),
        ("age,risk_group\n20,I\n", "column risk_group would occur twice in the result; rename it"),
        ("age,tumor_size\n", "expected a header line and at least one row below it"),
        ("", "expected a header line and at least one row below it"),
        (b"age,grade\n40,\xff\n", "byte 13 is not UTF-8 text; save the file as CSV in UTF-8"),
    ],
)
def test_a_file_that_is_not_a_table_of_patients_is_rejected(run: Run, text: str | bytes, error: str) -> None:
    status, rows, errors = run(text)
    assert (status, rows, errors) == (2, [], [f"medserve: FILE: {error}"])


def test_an_unclosed_quote_is_reported(run: Run) -> None:
    status, _, errors = run('age,grade\n40,I\n41,"I\n42,I\n')
    assert status == 2
    assert errors == ["medserve: FILE:3: not well-formed CSV: unexpected end of data"]


def test_files_that_cannot_be_read_or_written_are_reported(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "patients.csv"
    assert main(["--server", clinic, "risk", str(path)]) == 2
    assert capsys.readouterr().err == f"medserve: {path}: cannot be read: No such file or directory\n"
    path.write_text("age,tumor_size,grade\n40,20,I\n")
    output = tmp_path / "out.csv"
    output.mkdir()
    assert main(["--server", clinic, "risk", str(path), "-o", str(output)]) == 2
    assert capsys.readouterr().err == f"medserve: {output}: cannot be written: Is a directory\n"
    assert {path.name for path in tmp_path.iterdir()} == {"patients.csv", "out.csv"}
