"""One image in the browser: from the file to its result, operating point and explanations."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medserve_client import Client
from samples.dicom_files import PATIENT, dicom
from samples.explained_models import HEIGHT, WIDTH
from servers.server_process import ServerProcess, running_server
from web.browser import Open, Page, expect
from web.image_view.view import CHANNELS, MARKUP, choose, classify, encoded, even, save_lesions, visit

LESION = encoded(even(240))
FRAMES = np.stack([even(brightness) for brightness in (10, 100, 200)])


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves models whose answers are known."""
    folder = tmp_path_factory.mktemp("clinic")
    save_lesions(folder)
    with running_server("--models", str(folder), "--transport", "grpcio") as started:
        yield started


def figures(page: Page) -> list[str]:
    """Returns threshold, sensitivity and specificity as shown."""
    return page.locator(".image-figures dd").all_inner_texts()


def preview(page: Page) -> bytes:
    """Returns the PNG file that is shown as the model's input."""
    source = page.locator(".image-stage image").get_attribute("href") or ""
    return base64.b64decode(source.removeprefix("data:image/png;base64,"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_shown_next_to_the_models_input(clinic: ServerProcess, open_page: Open, kind: str) -> None:
    page = visit(open_page(clinic.http_url))
    classify(page, "picture", encoded(np.repeat(np.repeat(even(240), 2, 0), 2, 1), kind))
    original = page.get_by_role("img", name="Original of picture")
    expect(original).to_be_visible()
    assert original.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [2 * WIDTH, 2 * HEIGHT]
    expect(page.get_by_text(f"{2 * WIDTH} \N{MULTIPLICATION SIGN} {2 * HEIGHT} pixels")).to_be_visible()
    expect(page.get_by_role("img", name="picture as the model received it")).to_be_visible()
    assert preview(page).startswith(b"\x89PNG")
    expect(page.locator(".image-label")).to_have_text("lesion")
    expect(page.get_by_text("The probability of lesion, 84.7%, is at or above the threshold of 50.0%")).to_be_visible()
    expect(page.locator(".files-warnings")).to_contain_text("Resized:")


@pytest.mark.parametrize(("name", "data"), [("TIFF", encoded(even(240), "TIFF")), ("DICOM", dicom(even(240)))])
def test_browsers_cannot_show_every_format(clinic: ServerProcess, open_page: Open, name: str, data: bytes) -> None:
    page = visit(open_page(clinic.http_url))
    classify(page, "scan", data)
    expect(page.get_by_text(f"Browsers do not display {name} files.")).to_be_visible()
    expect(page.get_by_role("img", name="Original of scan")).to_have_count(0)
    expect(page.get_by_role("img", name="scan as the model received it")).to_be_visible()
    assert PATIENT[0] not in page.content()


def test_probabilities_have_an_uncertainty(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url))
    classify(page, "picture.png", LESION)
    with Client(clinic.target) as client:
        result = client.classify(LESION, "lesions").results[0]
    assert result.uncertainty is not None
    shown = f"{100 * result.labels[0].probability:.1f}% ± {100 * result.uncertainty:.1f}%"
    chart = page.get_by_role("img", name="Probabilities")
    expect(chart).to_contain_text(shown)
    rows = page.get_by_role("table", name="Probabilities").get_by_role("row")
    expect(rows.nth(1)).to_contain_text(f"{100 * result.labels[0].probability:.1f}%")
    expect(page.get_by_text("Novelty score")).to_be_visible()
    expect(page.get_by_text("Unlike the training data:")).to_be_visible()


def test_a_file_can_be_dropped_or_pasted(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url))
    script = """([type, name, data]) => {
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(
            type === "paste"
                ? new ClipboardEvent(type, { ...options, clipboardData: transfer })
                : new DragEvent(type, { ...options, dataTransfer: transfer }));
    }"""
    for number, kind in enumerate(("drop", "paste")):
        page.evaluate(script, [kind, f"{kind}.png", base64.b64encode(LESION).decode()])
        expect(page.get_by_role("heading", name=f"{kind}.png", level=2)).to_be_visible()
        expect(page.locator(".image-decision")).to_be_visible()
        expect(page.locator(".files-list tbody tr")).to_have_count(number + 1)


def test_the_slider_shows_each_frame(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url))
    data = dicom(FRAMES, frames=3)
    classify(page, "series.dcm", data)
    expect(page.get_by_text("First of several images:")).to_be_visible()
    first = preview(page)
    slider = page.get_by_label("Frame", exact=True)
    slider.focus()
    page.keyboard.press("End")
    expect(page.get_by_text("3 of 3")).to_be_visible()
    with Client(clinic.target) as client:
        last = client.classify(data, "lesions", frame=2, preview=True).results[0]
    probability = next(one.probability for one in last.labels if one.label == "lesion")
    expect(page.locator(".image-decision")).to_contain_text(f"{100 * probability:.1f}%")
    expect(page.locator(".files-result")).not_to_have_attribute("aria-busy", "true")
    assert preview(page) == last.preview_png != first
    expect(slider).to_be_focused()
    page.keyboard.press("Home")
    expect(page.get_by_text("First of several images:")).to_be_visible()


def test_the_operating_point_can_be_moved(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url))
    classify(page, "faint.png", encoded(even(100)))  # 35.3 %
    expect(page.locator(".image-label")).to_have_text("clear")
    assert figures(page) == ["50.0%", "50.0%", "50.0%"]
    expect(page.get_by_role("radio", name="balanced")).to_be_checked()
    page.get_by_role("radio", name="sensitive").check()
    expect(page.locator(".image-label")).to_have_text("lesion")
    assert figures(page) == ["25.5%", "74.5%", "25.5%"]
    slider = page.get_by_label("Threshold on the probability of lesion")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert figures(page) == ["26.0%", "74.0%", "26.0%"]
    expect(slider).to_have_attribute("aria-valuetext", "26.0%")
    expect(page.get_by_text("On the test split, at 26.0%: sensitivity 73.9%, specificity 26.0%.")).to_be_visible()
    expect(page.get_by_text("The threshold applies to this page only; the server decides at balanced.")).to_be_visible()
    assert page.get_by_role("radio", checked=True, name="sensitive").count() == 0
    page.keyboard.press("End")
    assert figures(page) == ["99.0%", "1.0%", "99.0%"]
    expect(page.locator(".image-label")).to_have_text("clear")
    expect(page.get_by_role("img", name="Sensitivity, Specificity")).to_be_visible()
    expect(page.locator(".image-ticks line")).to_have_count(2)


def test_a_probability_close_to_its_threshold_is_shown_with_more_digits(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url), "close-lesions")
    classify(page, "faint.png", encoded(even(100)))
    expect(page.get_by_text("The probability of lesion, 35.29%, is below the threshold of 35.30%")).to_be_visible()


def test_only_operating_points_of_the_same_label_are_marked(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url), "close-lesions")
    classify(page, "faint.png", encoded(even(100)))
    expect(page.locator(".image-ticks title")).to_have_text(["close"])
    page.get_by_role("radio", name="other").check()
    expect(page.locator(".image-ticks title")).to_have_text(["other"])


def test_a_model_without_operating_points_decides_for_the_most_probable(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url), "plain-lesions")
    classify(page, "picture.png", LESION)
    expect(page.get_by_text("This model has no operating points")).to_be_visible()
    expect(page.get_by_text("The most probable label: 84.7%.")).to_be_visible()
    expect(page.get_by_role("radio", name="Occlusion")).to_be_visible()
    expect(page.get_by_role("radio", name="Class activation")).to_have_count(0)
    expect(page.get_by_role("heading", name="Feature maps")).to_have_count(0)


def test_maps_are_drawn_over_the_models_input(clinic: ServerProcess, open_page: Open) -> None:
    opened = open_page(clinic.http_url)
    page = visit(opened)
    classify(page, "picture.png", LESION)
    sent = [url for url in opened.requests if ":classify" in url]
    assert len(sent) == 1  # explanations are computed on request only
    layer = page.locator(".image-stage g")
    expect(layer.locator("rect")).to_have_count(0)
    page.get_by_role("radio", name="Occlusion").check()
    expect(layer.locator("rect")).to_have_count(49)
    expect(page.get_by_text("How far the probability of lesion drops")).to_be_visible()
    expect(page.get_by_role("img", name="Color scale")).to_be_visible()
    assert layer.get_attribute("opacity") == "0.65"
    page.get_by_label("Opacity").focus()
    page.keyboard.press("Home")
    assert layer.get_attribute("opacity") == "0"
    page.get_by_role("radio", name="Class activation").check()
    expect(layer.locator("rect")).to_have_count(6)
    assert layer.locator("rect").first.get_attribute("fill") == "#d62728"
    page.get_by_text("Values of the map").click()
    expect(page.locator(".image-map td.numeric").first).to_have_text("0.94")
    page.get_by_label("Label").select_option("clear")
    expect(page.locator(".image-legend-labels")).to_contain_text("0.94 in favor")
    expect(page.get_by_text("the score of clear")).to_be_visible()
    assert layer.locator("rect").first.get_attribute("fill") == "#1f77b4"
    page.get_by_role("radio", name="No map").check()
    expect(layer.locator("rect")).to_have_count(0)


def test_feature_maps_are_shown_by_channel(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url))
    pixels = even(0)
    pixels[:7, :7] = 255  # the first of 2 x 3 values
    classify(page, "corner.png", encoded(pixels))
    page.get_by_label("Layer").select_option("wide")
    page.get_by_role("button", name="Compute").click()
    canvas = page.locator(".image-channels canvas")
    expect(canvas).to_have_count(12)
    shades = (
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, 3, 2).data.filter((_, at) => at % 4 === 0))"
    )
    assert canvas.first.evaluate(shades) == [255, 0, 0, 0, 0, 0]
    expect(page.get_by_role("img", name="Channel 1: 0.00 to 1.00")).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(canvas).to_have_count(CHANNELS - 12)
    expect(page.get_by_text(f"Channels 13 to 14 of {CHANNELS}")).to_be_visible()
    expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_warnings_are_translated(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url))
    rgb = np.repeat(even(240)[..., None], 3, axis=2)
    classify(page, "color.png", encoded(rgb))
    warnings = page.locator(".files-warnings li")
    expect(warnings.filter(has_text="Color converted:")).to_be_visible()
    messages = warnings.locator("[lang=en]").all_inner_texts()
    page.get_by_label("Language").select_option("zh")
    expect(page.locator(".files-warnings h3")).to_have_text("警告")
    expect(warnings.filter(has_text="颜色已转换")).to_be_visible()
    assert warnings.locator("[lang=en]").all_inner_texts() == messages
    expect(page.get_by_role("heading", name="color.png", level=2)).to_be_visible()  # the file has stayed


def test_a_lost_connection_is_reported_and_repeated(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url))
    page.context.set_offline(True)
    choose(page, ("picture.png", LESION))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator(".image-label")).to_have_text("lesion")
    expect(alert).to_have_count(0)


def test_a_file_that_is_gone_is_reported(clinic: ServerProcess, open_page: Open, tmp_path: Path) -> None:
    page = visit(open_page(clinic.http_url))
    file = tmp_path / "series.dcm"
    file.write_bytes(dicom(FRAMES, frames=3))
    page.locator("#image-files").set_input_files(file)
    expect(page.locator(".image-decision")).to_be_visible()
    file.unlink()
    page.get_by_label("Frame", exact=True).press("End")
    expect(page.get_by_role("alert")).to_contain_text("The browser cannot read this file.")


def test_markup_in_names_is_shown_as_text(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url), "hostile-lesions")
    classify(page, f"{MARKUP}.png", LESION)
    expect(page.locator(".image-label")).to_have_text(f"lesion{MARKUP}")
    expect(page.locator(".image-decision")).to_contain_text(f"point{MARKUP}")
    page.get_by_role("radio", name="Occlusion").check()
    expect(page.locator(".image-legend")).to_be_visible()
    choose(page, (f"broken{MARKUP}", b"nothing"))
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.locator("main img[src=x]").count() == 0


def test_a_result_prints_on_one_page(clinic: ServerProcess, open_page: Open) -> None:
    page = visit(open_page(clinic.http_url))
    choose(page, ("broken.png", b"nothing"), ("series.dcm", dicom(FRAMES, frames=3)))
    page.get_by_role("button", name="series.dcm").click()
    expect(page.locator(".image-decision")).to_be_visible()
    page.get_by_role("radio", name="Occlusion").check()
    page.get_by_label("Layer").select_option("wide")
    page.get_by_role("button", name="Compute").click()
    expect(page.locator(".image-channels canvas")).to_have_count(12)
    assert len(re.findall(rb"/Type /Page\b", page.pdf(format="A4"))) == 1
    page.emulate_media(media="print")
    for shown in (".image-stage g rect", ".image-legend", ".image-figures", ".image-channels canvas", ".notice"):
        expect(page.locator(shown).first).to_be_visible()
    expect(page.get_by_text("1 of 3")).to_be_visible()
    for hidden in (".drop", ".files-list", ".commands", "#image-threshold"):
        expect(page.locator(hidden).first).to_be_hidden()
