"""Segmentation in the browser: layers, figures, objects, and files to save."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samples.dicom_files import dicom
from servers.server_process import ServerProcess, running_server
from web.axe import violations
from web.browser import Locator, Open, Page, expect
from web.segmentation_view.view import (
    BIG,
    HEIGHT,
    HOLE,
    MARKUP,
    WIDTH,
    click,
    color,
    crowd,
    encoded,
    figure,
    picture,
    rows,
    save_models,
    segment,
    selected,
    visit,
)
from web.shown_commands import run_shown

IMAGE, PROBABILITY, UNCERTAINTY, MASK, OUTLINES, MARKER = range(6)
YELLOW = [255, 221, 0, 255]
EMPTY = [0, 0, 0, 0]
PICTURE = encoded(picture())
TIMES = "\N{MULTIPLICATION SIGN}"
SERIES = dicom(np.stack([picture(), picture()[::-1]]), frames=2, PixelSpacing=["0.5", "0.25"])

IS_SHOWN = """row => {
  const [inner, outer] = [row, row.closest(".table-scroll")].map(node => node.getBoundingClientRect());
  return inner.top >= outer.top && inner.bottom < outer.bottom + 1;
}"""
"""Whether a row is within the visible part of its table."""


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves models whose answers are known."""
    folder = tmp_path_factory.mktemp("ward")
    save_models(folder)
    with running_server("--models", str(folder), "--transport", "grpcio") as started:
        yield started


def expect_value(shown: Locator, text: str) -> None:
    expect(shown.locator(".segmentation-value")).to_have_text(text)


def enter_spacing(page: Page, row: str, column: str = "") -> None:
    page.get_by_label("Between columns (mm)").fill(column)
    page.get_by_label("Between rows (mm)").fill(row)
    page.keyboard.press("Enter")


def saved(page: Page, button: str) -> Path:
    """Returns the file that a button saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).last.click()
    return download.value.path()


def test_objects_are_counted_and_measured(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url))
    segment(page, ("spots.png", PICTURE))
    expect_value(figure(page, "Count"), "3")
    expect(figure(page, "Count")).to_contain_text("2 to 4: contains the true count for 90% of the validation images.")
    expect_value(figure(page, "Area"), "548 px")
    expect(figure(page, "Area")).to_contain_text("11.4% of the image")
    expect(page.get_by_text("Pixel spacing not known:")).to_be_visible()
    expect(rows(page).locator("td:nth-child(2)")).to_have_text(["384", "128", "36"])
    enter_spacing(page, "0.5", "0.25")
    expect_value(figure(page, "Area"), "68.50 mm²")
    expect(rows(page).locator("td:nth-child(2)")).to_have_text(["48.00", "16.00", "4.50"])
    expect(page.get_by_text(f"0.5 {TIMES} 0.25 mm (rows {TIMES} columns), as entered here")).to_be_visible()
    enter_spacing(page, "0.0005")
    expect_value(figure(page, "Area"), "137.0 \N{MICRO SIGN}m²")
    expect(rows(page).locator("td:nth-child(2)")).to_have_text(["96.00", "32.00", "9.00"])
    enter_spacing(page, "0", "0.25")
    expect(page.get_by_role("alert")).to_contain_text("A distance is a number above 0 and up to 1000 mm.")


def test_layers_show_where_the_objects_are(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url))
    segment(page, ("spots.png", encoded(picture(40))))
    inside, outside, hole, edge = (BIG[0] + 5, BIG[1] + 5), (2, 2), (HOLE[0] + 1, HOLE[1] + 1), (BIG[0] - 0.5, 20)
    expect(page.locator("#segmentation-mask")).to_have_value("30")
    assert [color(page, IMAGE, *inside)[0], color(page, IMAGE, *outside)[0]] == [255, 40]
    assert [color(page, MASK, *pixel) for pixel in (inside, outside, hole)] == [YELLOW, EMPTY, EMPTY]
    assert [color(page, OUTLINES, *pixel) for pixel in (edge, inside)] == [YELLOW, EMPTY]
    assert color(page, PROBABILITY, *inside) == [253, 231, 37, 255]
    assert 0 < color(page, PROBABILITY, *outside)[3] < 255
    assert color(page, UNCERTAINTY, *inside)[3] == 255
    layers = page.locator(".segmentation-stage canvas")
    expect(layers.nth(PROBABILITY)).to_be_hidden()
    page.get_by_label("Probability", exact=True).press("End")
    expect(layers.nth(PROBABILITY)).to_have_css("opacity", "1")
    page.get_by_label("Probability", exact=True).press("ArrowLeft")
    expect(layers.nth(PROBABILITY)).to_have_css("opacity", "0.95")
    expect(page.get_by_role("img", name="100%")).to_be_visible()
    page.get_by_label("Areas").press("Home")
    expect(layers.nth(MASK)).to_be_hidden()


def test_an_object_is_selected_in_the_table_and_in_the_picture(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url))
    segment(page, ("spots.png", PICTURE))
    click(page, BIG[0] + 5, BIG[1] + 5)
    expect(selected(page).locator("th")).to_have_text("1")
    expect(page.get_by_role("heading", name="Object 1")).to_be_visible()
    assert color(page, MARKER, BIG[0] - 0.5, 20) == [255, 255, 255, 255]
    page.get_by_role("button", name="2", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="Object 2")).to_be_visible()
    expect(page.get_by_role("button", name="2", exact=True)).to_be_focused()
    assert color(page, MARKER, BIG[0] - 0.5, 20) == EMPTY
    click(page, 2, 2)
    expect(selected(page)).to_have_count(0)
    expect(page.get_by_role("heading", name="Object 2")).to_be_hidden()


def test_thousands_of_objects_are_shown_in_pages(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url))
    across, down = 60, 40
    segment(page, ("crowd.png", encoded(crowd(across, down))))
    expect_value(figure(page, "Count"), "2,400")
    expect(rows(page)).to_have_count(50)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("51 to 100 of 2,400")).to_be_visible()
    click(page, 6 * (across - 1) + 2, 6 * (down - 1) + 2, 6 * across, 6 * down)
    expect(selected(page)).to_have_count(1)
    assert selected(page).evaluate(IS_SHOWN)
    number = selected(page).locator("th").inner_text()
    expect(page.get_by_role("heading", name=f"Object {number}")).to_be_visible()
    page.get_by_role("button", name="No.").click()
    expect(rows(page).locator("th").first).to_have_text("2400")
    page.get_by_role("button", name="Major axis").click()
    expect(page.get_by_role("columnheader", name="Major axis")).to_have_attribute("aria-sort", "descending")


def test_a_measure_has_its_limits_of_agreement(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url), "head")
    enter_spacing(page, "0.5")
    segment(page, ("head.png", PICTURE))
    shown = figure(page, "head circumference")
    expect(shown).to_contain_text("95% limits of agreement with the reference")
    value, low, high = (float(number) for number in re.findall(r"\d+\.\d+", shown.inner_text()))
    assert [low, high] == pytest.approx([value - 2.5, value + 1.5], abs=0.011)
    expect(figure(page, "Count")).to_have_count(0)


def test_a_dicom_file_is_shown_and_states_its_pixel_spacing(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url))
    enter_spacing(page, "9")
    segment(page, ("series.dcm", SERIES))
    expect(page.get_by_text(f"0.5 {TIMES} 0.25 mm (rows {TIMES} columns), from the file")).to_be_visible()
    middle = (BIG[0] + 5, BIG[1] + 5)
    assert color(page, IMAGE, *middle) == [255, 255, 255, 255]
    page.get_by_label("Frame", exact=True).press("End")
    expect(page.get_by_text("First of several images:")).to_have_count(0)
    assert color(page, IMAGE, *middle) == [0, 0, 0, 255]
    assert color(page, MASK, middle[0], HEIGHT - 1 - middle[1]) == YELLOW


def test_labels_can_be_hidden(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url), "pairs")
    segment(page, (f"{MARKUP}.png", PICTURE))
    expect(rows(page)).to_have_count(4)
    assert color(page, MASK, 2, 2) == [0, 200, 255, 255]
    page.get_by_label("spot", exact=True).uncheck()
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text(f"ground{MARKUP}")
    assert color(page, MASK, BIG[0] + 5, BIG[1] + 5) == EMPTY
    assert page.locator("main img[src=x]").count() == 0


def test_an_unfamiliar_image_is_marked_in_both_languages(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url))
    segment(page, ("bright.png", encoded(np.full((HEIGHT, WIDTH), 250, np.uint8))))
    expect(page.get_by_text("This image is unlike the training data: do not rely on the result.")).to_be_visible()
    page.get_by_label("Language").select_option("zh")
    expect(page.locator(".segmentation-unfamiliar")).to_contain_text("此图像与训练数据差异较大")
    expect(page.get_by_role("heading", name="bright.png", level=2)).to_be_visible()  # the file has stayed


def test_objects_and_the_picture_are_saved(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url))
    segment(page, ("spots.png", PICTURE))
    page.get_by_label("Areas").press("End")
    text = saved(page, "Save as CSV").read_text("utf-8-sig")
    objects = list(csv.DictReader(io.StringIO(text)))
    assert [objects[0][name] for name in ("file", "label", "id", "area_px")] == ["spots.png", "spot", "1", "384"]
    assert [objects[0][name] for name in ("left", "top", "width", "height")] == [str(value) for value in BIG]
    assert float(objects[0]["equivalent_diameter"]) == pytest.approx((4 * 384 / np.pi) ** 0.5)
    with Image.open(saved(page, "Save the picture")) as image:
        scale = image.width / WIDTH
        assert image.height == pytest.approx(HEIGHT * scale, abs=1)
        shown = image.convert("RGB")
        assert shown.getpixel((int(15 * scale), int(15 * scale))) == (255, 221, 0)
        assert shown.getpixel((int(2 * scale), int(2 * scale))) == (0, 0, 0)


def test_many_files_have_a_table_and_a_csv_file(ward: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(ward.http_url))
    nothing = encoded(np.zeros((8, 8), np.uint8))
    segment(page, ("spots.png", PICTURE), ("empty.png", nothing), ("broken.png", b"nothing"))
    expect(page.get_by_text("2 of 3 files done, 1 failed").first).to_be_visible()
    page.get_by_role("button", name="Count").click()
    files = page.locator(".files-batch + .files-list tbody tr")
    expect(files.locator("td:nth-child(3)")).to_have_text(["3", "0", ""])
    files.last.click()
    expect(page.get_by_role("alert").last).to_contain_text("The server did not accept the input.")
    with page.expect_download() as download:
        page.locator(".files-batch").get_by_role("button", name="Save as CSV").click()
    spots, empty, broken = csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig")))
    assert [one["count_spot"] for one in (spots, empty, broken)] == ["3", "0", ""]
    assert [spots[name] for name in ("count_low_spot", "area_px_spot", "area_mm2_spot")] == ["2", "548", ""]
    assert "images[0]" in broken["error"]


@pytest.mark.parametrize("name", ["medserve", "curl", "Python", "Node"])
def test_the_commands_run_as_shown(ward: ServerProcess, open_page: Open, tmp_path: Path, name: str) -> None:
    file = "it's a picture.png"
    (tmp_path / file).write_bytes(PICTURE)
    page = visit(open_page(ward.http_url))
    enter_spacing(page, "0.5")
    segment(page, (file, PICTURE))
    output = run_shown(page.locator("details.commands"), name, tmp_path)
    if name == "medserve":
        assert len((tmp_path / "objects.csv").read_text().splitlines()) == 4
    elif name == "Python":
        assert output.startswith("spot 3 548\n[11.05")
    else:
        (result,) = json.loads(output)["results"]
        assert result["labels"][0]["areaMm2"] == 137


@pytest.mark.parametrize(("language", "theme", "size"), [("en", "light", "desktop"), ("zh", "dark", "phone")])
def test_axe_finds_nothing(ward: ServerProcess, open_page: Open, language: str, theme: str, size: str) -> None:
    page = visit(open_page(ward.http_url, language=language, theme=theme, size=size), "spots", language)
    segment(page, ("bright.png", encoded(picture(200))), ("crowd.png", encoded(crowd(10, 6))))
    expect(page.locator(".files-list tbody td:last-child").last).not_to_contain_text("…")
    page.locator(".files-list button.link").nth(1).click()
    expect(rows(page)).to_have_count(50)
    rows(page).first.click()
    for layer in ("probability", "uncertainty"):
        page.locator(f"#segmentation-{layer}").press("End")
    page.locator("summary").last.click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
