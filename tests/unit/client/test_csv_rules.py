"""The rules of docs/csv.md: `medserve risk` and `medserve-train` read or reject any file in the same way."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserve_client.cli import main
from medserve_client.cli.feature_columns import feature_value
from medserve_proto.v1.manifest_pb2 import Categories, Feature, NumericRange
from medserve_training.data.csv_table import parse_choice, parse_number
from medserve_training.data.patient_data import load_cohort
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import load_recipe

Read = Callable[[bytes], str]

# The features of the model `relapse` in the fixture `clinic`.
SCHEMA = """
[outcome]
time_column = "days"
time_unit = "days"
event_column = "dead"
event_value = 1
censored_value = 0
description = "death"

[[features]]
name = "age"
column = "age"
description = "Age"
unit = "years"
minimum = 0
maximum = 120
required = true

[[features]]
name = "tumor_size"
column = "tumor_size"
description = "Size"
unit = "mm"
minimum = 0
maximum = 1000

[[features]]
name = "grade"
column = "grade"
description = "Grade"
categories = ["I", "II", "III"]
values = ["I", "II", "III"]
"""
HEADER = "age,tumor_size,grade,days,dead\n"
OPTIONAL = "an empty cell means missing"
REQUIRED = "an empty cell means missing, but a value is required here"
SEPARATORS = "write it with a decimal point and without thousands separators"


@pytest.fixture
def client_reads(clinic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Read:
    """Returns what `medserve risk` sends for the first row of a file, or its first error."""

    def read(content: bytes) -> str:
        path = tmp_path / "patients.csv"
        path.write_bytes(content)
        status = main(["--server", clinic, "risk", str(path), "--json"])
        captured = capsys.readouterr()
        lines = captured.err.replace(str(path), "FILE").splitlines()
        errors = [line.removeprefix("medserve: ") for line in lines if "copied, not features" not in line]
        assert (status == 0) == (not errors)
        if errors:
            return errors[0]
        return "; ".join(warning["message"] for warning in json.loads(captured.out.splitlines()[0])["warnings"])

    return read


@pytest.fixture
def training_reads(tmp_path: Path) -> Read:
    """Returns how `medserve-train` parses the first row of a file, or its error."""

    def read(content: bytes) -> str:
        path = tmp_path / "cohort.csv"
        path.write_bytes(content)
        path.with_suffix(".toml").write_text(SCHEMA, encoding="utf-8")
        try:
            patients, _ = load_cohort(load_recipe("breast-cancer-risk", data=f"csv:{path}"))
        except UserError as error:
            return str(error).replace(str(path), "FILE")
        age, size, grade = patients.features[0]
        said = [f"age number {age:g}", "tumor_size missing" if math.isnan(size) else f"tumor_size number {size:g}"]
        return "; ".join(
            [*said, "grade missing" if math.isnan(grade) else f"grade category {['I', 'II', 'III'][int(grade)]}"]
        )

    return read


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        # Only an empty cell is missing; spaces around a value and quotes are ignored.
        ("40,,", "age number 40; tumor_size missing; grade missing"),
        ('40,"",""', "age number 40; tumor_size missing; grade missing"),
        ("40,  ,\u00a0", "age number 40; tumor_size missing; grade missing"),
        (" 40 , 20.5 ,  II", "age number 40; tumor_size number 20.5; grade category II"),
        *(
            (f"40,{text},I", f"FILE:2: column tumor_size: '{text}' is not a number; {OPTIONAL}")
            for text in ("NA", "N/A", ".", "None", "null", "nan", "NaN", "-", "?", "inf", "-Infinity", "True", "#N/A")
        ),
        *((f"{text},20,I", f"FILE:2: column age: '{text}' is not a number; {REQUIRED}") for text in ("NA", "old")),
        *(
            (f"40,20,{text}", f"FILE:2: column grade: '{text}' is not one of I, II, III; {OPTIONAL}")
            for text in ("NA", "None", ".", "i", "1", "IV", "I II")
        ),
        # Numbers have a decimal point and no separators between digits.
        ("40,2e1,I", "age number 40; tumor_size number 20; grade category I"),
        ("+40.,.5,I", "age number 40; tumor_size number 0.5; grade category I"),
        ("40,0020,I", "age number 40; tumor_size number 20; grade category I"),
        ('40,"20,5",I', "FILE:2: column tumor_size: '20,5' is not a number; write it with a decimal point"),
        *(
            (f'40,"{text}",I', f"FILE:2: column tumor_size: {text!r} is not a number; {SEPARATORS}")
            for text in ("1,000", "1,000.5", "1.000,5", "1 000", "1'000", "1_000", "1.000.000")
        ),
        ("40,1e400,I", "FILE:2: column tumor_size: '1e400' is too large a number"),
        *(
            (f"40,{text},I", f"FILE:2: column tumor_size: '{text}' is not a number; {OPTIONAL}")
            for text in ("2020-01-02", "0x10", "20 mm", "١٢", "1e", "--1", "1/2")
        ),
    ],
)
def test_a_cell_is_read_the_same_by_client_and_training(
    client_reads: Read, training_reads: Read, row: str, outcome: str
) -> None:
    content = f"{HEADER}{row},300,1\n".encode()
    for read in (client_reads, training_reads):
        assert read(content) == outcome


WHOLE = "age number 40; tumor_size number 20; grade category I"


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b"\xef\xbb\xbf" + HEADER.encode() + b"40,20,I,300,1\n", WHOLE),
        (b"\r\n\n" + HEADER.encode() + b"\n40,20,I,300,1\r\n\r\n", WHOLE),
        (b"age ,\ttumor_size, grade,days,dead\r40,20,I,300,1\r", WHOLE),
        (b"age;tumor_size;grade;days;dead\n40;20;I;300;1\n", WHOLE),
        (b"age\ttumor_size\tgrade\tdays\tdead\n40\t20\tI\t300\t1\n", WHOLE),
        (b"sep=;\r\nage;tumor_size;grade;days;dead\r\n40;20;I;300;1\r\n", WHOLE),
        (b"\xef\xbb\xbfSEP=,\n" + HEADER.encode() + b"40,20,I,300,1\n", WHOLE),
        (b'"sep=;";;;;\nage;tumor_size;grade;days;dead\n40;20;I;300;1\n', WHOLE),
        (
            b"sep=;\nage;tumor_size;grade;days;dead\n40;NA;I;300;1\n",
            f"FILE:3: column tumor_size: 'NA' is not a number; {OPTIONAL}",
        ),
        (
            b"sep=|\nage|tumor_size|grade|days|dead\n40|20|I|300|1\n",
            "FILE:1: sep=| names the delimiter; expected a comma, a semicolon or a tab",
        ),
        (HEADER.encode() + b"40,20,I,300,1\n41,20\n", "FILE:3: 2 cells, but the header has 5"),
        (HEADER.encode() + b"40,20,I,300,1,7\n", "FILE:2: 6 cells, but the header has 5"),
        (
            HEADER.encode() + b'40,"20" ,I,300,1\n',
            "FILE:2: not well-formed CSV: ',' expected after '\"'",
        ),
        (HEADER.encode() + b'40,"20,I,300,1\n', "FILE:2: not well-formed CSV: unexpected end of data"),
        (
            HEADER.encode() + b"40,2\x000,I,300,1\n",
            "FILE: holds NUL characters, so it is not a text file; save the file as CSV in UTF-8",
        ),
        (HEADER.encode("utf-16"), "FILE: byte 0 is not UTF-8 text; save the file as CSV in UTF-8"),
        (HEADER.encode() + b"40,20,\xe9,300,1\n", "FILE: byte 37 is not UTF-8 text; save the file as CSV in UTF-8"),
        (b"age,age,tumor_size,grade,days,dead\n40,41,20,I,300,1\n", "FILE: column age is there 2 times; keep one"),
        (HEADER.encode(), "FILE: expected a header line and at least one row below it"),
        (b"", "FILE: expected a header line and at least one row below it"),
        (b"sep=;\n", "FILE: expected a header line and at least one row below it"),
    ],
)
def test_a_file_is_read_the_same_by_client_and_training(
    client_reads: Read, training_reads: Read, content: bytes, outcome: str
) -> None:
    assert client_reads(content) == outcome
    assert training_reads(content) == outcome


NUMBER = Feature(name="x", numeric=NumericRange(valid_min=-1e308, valid_max=1e308), imputed_as=0)
NAMES = ["None", "NA", "null", "nan", "1", "1.0", "TRUE", "."]
CATEGORY = Feature(name="x", categorical=Categories(names=NAMES), imputed_as=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_category_may_have_any_name(name: str) -> None:
    assert feature_value(f" {name} ", CATEGORY) == name
    assert NAMES[parse_choice(name, NAMES, required=False)] == name


def outcome_of(call: Callable[[], object]) -> object:
    try:
        return call()
    except ValueError as error:
        return str(error)


@settings(deadline=None)
@given(
    st.text("0123456789.,'_ eE+-naNfi\u00a0", min_size=1)
    | st.text(min_size=1)
    | st.floats().map(str)
    | st.sampled_from(NAMES)
)
def test_any_cell_is_parsed_the_same_by_client_and_training(cell: str) -> None:
    text = cell.strip()
    if not text:
        assert feature_value(cell, NUMBER) is None
        assert feature_value(cell, CATEGORY) is None
        return
    assert outcome_of(lambda: feature_value(cell, NUMBER)) == outcome_of(lambda: parse_number(text, required=False))
    chosen = outcome_of(lambda: NAMES[parse_choice(text, NAMES, required=False)])
    assert outcome_of(lambda: feature_value(cell, CATEGORY)) == chosen
