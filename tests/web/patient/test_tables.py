"""Rows from spreadsheets and CSV files in the patient view; `medserve risk` is the reference."""

import codecs
from pathlib import Path

import pytest

from medserve_command import run
from samples.patient import PATIENT
from servers.server_process import ServerProcess
from web.browser import Open, Page, expect
from web.patient.view import visit

HEADER = ",".join(PATIENT)
ROW = ",".join(map(str, PATIENT.values()))
NUMBERED = "age,positive_nodes\n" + "".join(f"{20 + index % 60},{1 + index % 50}\n" for index in range(700))
"""More rows than one request has."""
TABLES = {
    "commas": f"id,{HEADER}\nA-1,{ROW}\nA-2,{ROW}\n",
    "missing values": f'{HEADER}\n45,, ,"",2,,,\n',
    "no column for some": "age,positive_nodes,note\n45,2,x\n",
    "semicolons": f"{HEADER};name\n{ROW};b\n".replace(",", ";"),
    "declared delimiter": f"sep=;\n{HEADER}\n{ROW}\n".replace(",", ";"),
    "tabs and Windows lines": f"{HEADER}\r\n\r\n{ROW}\r\n".replace(",", "\t"),
    "quotes": f'"na""me",{HEADER}\n"a, b\nc ""d""",{ROW}\n"=1+1",{ROW}\n',
    "spaces": f" {HEADER.replace(',', ' , ')} \n {ROW.replace(',', ' , ')} \n",
    "refused cells": f"{HEADER}\nNA,post,22,II,3,120,80,yes\n17,post,22,II,3,120,80,yes\n{ROW}\n45,Post,,ii,2.5,1,1,\n",
    "numbers of other countries": f"{HEADER}\n45,pre,'1.000',I,1,1,1,no\n45,pre,inf,I,1,1e999,1,no\n".replace("'", ""),
    "decimal commas": "age;positive_nodes\n45,5;2\n1,000;2\nit's;2\n",
    "rows of other lengths": f"{HEADER}\n{ROW}\n45,pre\n{ROW},1\n",
    "out of the training data": f"{HEADER}\n95,post,200,II,55,120,80,yes\n",
    "several batches": NUMBERED,
    "several batches with refused rows": NUMBERED.replace("\n33,", "\n17,"),
}
REFUSED = {
    "empty": ("", "expected a header line and at least one row below it"),
    "only a header": (f"{HEADER}\n", "expected a header line and at least one row below it"),
    "no feature": ("a,b\n1,2\n", "no column is a feature of breast-cancer-risk; its features are age, menopause"),
    "misspelled": (f"{HEADER.replace('tumor_size', 'Tumour Size')}\n{ROW}\n", "Tumour Size is not a feature"),
    "twice": (f"age,{HEADER}\n45,{ROW}\n", "column age is there 2 times; keep one"),
    "required": ("age\n45\n", "breast-cancer-risk needs a column for positive_nodes"),
    "would occur twice": (f"{HEADER},error\n{ROW},x\n", "column error would occur twice in the result; rename it"),
    "unclosed quote": (f'{HEADER}\n"{ROW}\n', "line 2: not well-formed CSV: a quote is not closed"),
    "text after a quote": (f'{HEADER}\n"45"x,{ROW}\n', "line 2: not well-formed CSV: 'x' follows a closing quote"),
    "delimiter": (f"sep=|\n{HEADER}\n{ROW}\n", "sep=| names the delimiter"),
    "NUL": (f"{HEADER}\n{ROW}\0\n", "holds NUL characters"),
    "too many rows": ("age,positive_nodes\n" + "45,2\n" * 100_001, "has more than 100000 rows"),
}


@pytest.fixture
def page(open_page: Open, site: ServerProcess) -> Page:
    return visit(open_page(site.http_url))


def choose(page: Page, content: bytes, name: str = "patients.csv") -> None:
    page.get_by_label("CSV file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})


def saved(page: Page) -> bytes:
    """Saves the results."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save patients-risk.csv").click()
    return Path(download.value.path()).read_bytes()


def test_results_equal_those_of_the_command(page: Page, site: ServerProcess, tmp_path: Path) -> None:
    for name, text in TABLES.items():
        source, output = tmp_path / "patients.csv", tmp_path / f"{name}.csv"
        source.write_text(text, newline="")
        run("medserve", "--server", site.target, "risk", source, "-o", output)
        choose(page, text.encode())
        content = saved(page)
        assert content.decode() == output.read_text("utf-8"), name
        page.get_by_role("button", name="Clear", exact=True).click()


def test_a_byte_order_mark_is_skipped(page: Page) -> None:
    choose(page, codecs.BOM_UTF8 + f"{HEADER}\n{ROW}\n".encode())
    assert saved(page).startswith(b"age,")


def test_refused_rows_are_listed_with_line_and_column(page: Page) -> None:
    choose(page, TABLES["refused cells"].encode())
    section = page.get_by_role("region", name="Many patients")
    alert = section.get_by_role("alert")
    expect(alert).to_contain_text("Rows that were not scored: 3.")
    expect(alert).to_contain_text(
        "line 2: column age: 'NA' is not a number; an empty cell means missing, but a value is"
    )
    expect(alert).to_contain_text("line 3: column age: is 17, expected a number from 18 to 110 years")
    expect(alert).to_contain_text(
        "line 5: column menopause: 'Post' is not one of pre, post; an empty cell means missing"
    )
    expect(section.locator("tbody tr")).to_have_count(4)
    expect(section.locator("tbody tr", has_text="not scored")).to_have_count(3)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_table_of_patients_is_refused(page: Page, name: str) -> None:
    text, message = REFUSED[name]
    choose(page, text.encode())
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.get_by_role("button", name="Save")).to_have_count(0)


def test_other_bytes_and_large_files_are_refused(page: Page) -> None:
    choose(page, f"{HEADER}\n{ROW}\xe9\n".encode("latin-1"))
    expect(page.get_by_role("alert")).to_contain_text("is not UTF-8 text")
    choose(page, b"age,positive_nodes\n" + b" " * 33 * 2**20)
    expect(page.get_by_role("alert")).to_contain_text("at most 32 MiB are accepted")


def test_a_file_that_is_gone_is_reported(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_text(f"{HEADER}\n{ROW}\n")
    # The page learns of the file when it is gone.
    page.evaluate("addEventListener('change', (event) => event.stopPropagation(), { capture: true, once: true })")
    field = page.get_by_label("CSV file")
    field.set_input_files(file)
    file.unlink()
    field.dispatch_event("change")
    expect(page.get_by_role("alert")).to_contain_text("patients.csv: the browser cannot read this file")


@pytest.mark.parametrize(
    "text",
    [
        ROW,
        ROW.replace(",", "\t"),
        f"{HEADER}\n{ROW}\n".replace(",", "\t"),
        "positive_nodes\tage\tname\ttumor_size\n3\t55\tMs. A\t\n",
    ],
)
def test_a_pasted_row_fills_in_the_form(page: Page, text: str) -> None:
    form = page.locator(".patient-form")
    form.get_by_label("Progesterone").fill("7")
    paste(page, text)
    expect(page.get_by_text("The form is filled in.")).to_be_visible()
    expect(form.get_by_label("Age at diagnosis")).to_have_value("55")
    expect(form.get_by_label("Number of positive")).to_have_value("3")
    is_whole = "name" not in text
    expect(form.get_by_label("Progesterone")).to_have_value("120" if is_whole else "")
    group = form.get_by_role("radiogroup", name="Menopausal status")
    expect(group.get_by_role("radio", name="post" if is_whole else "not known")).to_be_checked()


def test_a_row_pasted_into_a_field_fills_in_all(page: Page) -> None:
    age = page.locator(".patient-form").get_by_label("Age at diagnosis")
    paste_event = """(field, text) => {
      const clipboardData = new DataTransfer();
      clipboardData.setData("text", text);
      field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
    }"""
    age.evaluate(paste_event, "NA\tpost")
    expect(page.get_by_text("The row has 2 cells")).to_be_visible()
    age.evaluate(paste_event, ROW.replace(",", "\t"))
    expect(age).to_have_value("55")
    expect(page.locator(".patient-form").get_by_label("Progesterone")).to_have_value("120")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No row contains values."),
        (HEADER, "No row contains values."),
        (f"{HEADER}\n{ROW}\n{ROW}", "These are several rows"),
        ("55,post,22", "The row has 3 cells; without a header, 8 are expected, in this order: age, menopause"),
        (ROW.replace("55", "NA"), "column age: 'NA' is not a number"),
        (ROW.replace("post", "Post"), "column menopause: 'Post' is not one of pre, post"),
        (
            f"{HEADER.replace('grade', 'Grade')}\n{ROW}",
            "column Grade is not a feature of breast-cancer-risk; if it is grade",
        ),
        ("grade\nII", "breast-cancer-risk needs a column for age, positive_nodes"),
    ],
)
def test_a_pasted_row_that_is_refused_changes_nothing(page: Page, text: str, message: str) -> None:
    age = page.locator(".patient-form").get_by_label("Age at diagnosis")
    age.fill("41")
    paste(page, text)
    expect(page.get_by_text(message)).to_be_visible()
    expect(age).to_have_value("41")


def paste(page: Page, text: str) -> None:
    page.get_by_text("Paste a row from a spreadsheet").click()
    page.get_by_label("One row, with or without its header").fill(text)
    page.get_by_role("button", name="Fill in the form").click()
