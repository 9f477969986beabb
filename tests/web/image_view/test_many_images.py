"""Many images in the browser: the table and its CSV, a busy server, and use without a mouse."""

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from calls.rest_client import Reply, RestClient
from samples.dicom_files import dicom
from servers.held_server import HeldServer, held_server
from web.axe import violations
from web.browser import Open, Page, expect
from web.image_view.view import cells, choose, classify, encoded, even, expect_statuses, save_lesions, visit

BRIGHTNESS = (40, 240, 150)
LIMIT = 6


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldServer]:
    """A server that admits six calls, and whose answers a test can hold."""
    folder = tmp_path_factory.mktemp("held")
    save_lesions(folder / "models")
    flags = ("--models", str(folder / "models"), "--transport", "grpcio", "--max-pending-requests", str(LIMIT))
    with held_server(folder / "hold", *flags) as started:
        yield started


def url(held: HeldServer) -> str:
    return held.server.http_url


def pictures(number: int) -> list[tuple[str, bytes]]:
    return [(f"picture {index}.png", encoded(even(10 * index))) for index in range(number)]


def test_a_table_shows_every_file(held: HeldServer, open_page: Open) -> None:
    page = visit(open_page(url(held)))
    files = [(f"{brightness}.png", encoded(even(brightness))) for brightness in BRIGHTNESS]
    choose(page, *files, ("=broken.png", b"nothing"))
    expect_statuses(page, ["Done", "Done", "Done", "The server did not accept the input."])
    expect(page.get_by_text("3 of 4 files done, 1 failed").first).to_be_visible()
    table = cells(page)
    assert [row[:4] for row in table] == [
        ["1", "40.png", "clear", "14.1%"],
        ["2", "240.png", "lesion", "84.7%"],
        ["3", "150.png", "lesion", "52.9%"],
        ["4", "=broken.png", "", ""],
    ]
    assert "Unlike the training data" in table[1][5]
    assert "images[0].encoded" in table[3][6]
    page.get_by_role("button", name="Probability of lesion").click()
    assert [row[1] for row in cells(page)] == ["240.png", "150.png", "40.png", "=broken.png"]
    page.get_by_role("button", name="File").click()
    assert [row[1] for row in cells(page)][1:] == ["40.png", "150.png", "240.png"]
    page.get_by_role("button", name="No.").click()
    assert [row[0] for row in cells(page)] == ["1", "2", "3", "4"]
    page.get_by_role("cell", name="52.9%").click()
    expect(page.get_by_role("heading", name="150.png", level=2)).to_be_visible()
    page.get_by_role("radio", name="sensitive").check()
    page.get_by_label("Threshold on the probability of lesion").press("End")
    assert [row[2] for row in cells(page)] == ["clear", "clear", "clear", ""]
    page.get_by_role("button", name="=broken.png").click()
    expect(page.get_by_role("alert")).to_contain_text("The server did not accept the input.")
    expect(page.locator(".image-decision")).to_be_hidden()


def test_the_table_is_saved_as_csv(held: HeldServer, open_page: Open) -> None:
    page = visit(open_page(url(held)))
    choose(page, ("bright.png", encoded(even(240))), ("=broken.png", b"nothing"))
    expect_statuses(page, ["Done", "The server did not accept the input."])
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    text = download.value.path().read_text("utf-8-sig")
    bright, broken = csv.DictReader(io.StringIO(text))
    assert bright["file"] == "bright.png"
    assert (bright["decision"], bright["operating_point"], bright["threshold"]) == ("lesion", "balanced", "0.5")
    assert float(bright["probability_lesion"]) == pytest.approx(0.9 * 240 / 255, abs=1e-6)
    assert float(bright["probability_clear"]) + float(bright["probability_lesion"]) == pytest.approx(1)
    assert float(bright["uncertainty"]) > 0
    assert bright["warnings"].startswith("UNFAMILIAR: ")
    assert (bright["error"], broken["decision"], broken["probability_lesion"]) == ("", "", "")
    assert "images[0].encoded" in broken["error"]
    assert broken["file"] == "'=broken.png"  # no formula for a spreadsheet


def test_nothing_of_one_frame_is_shown_as_that_of_another(held: HeldServer, open_page: Open) -> None:
    page = visit(open_page(url(held)))
    frames = np.stack([even(brightness) for brightness in (240, 10)])
    choose(page, ("series.dcm", dicom(frames, frames=2)), ("other.png", encoded(even(240))))
    expect_statuses(page, ["Done", "Done"])
    with held.hold():
        page.get_by_label("Frame", exact=True).press("End")
        expect_statuses(page, ["In progress", "Done"])
        page.get_by_role("radio", name="Occlusion").check()
        curl = page.locator(".commands pre").first
        expect(curl).to_contain_text('"occlusion":true')
        expect(curl).not_to_contain_text('"frame"')  # the map of the frame whose result is shown
        with page.expect_download() as download:
            page.get_by_role("button", name="Save as CSV").click()
        series, _ = csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig")))
        assert (series["frame"], series["decision"], series["probability_lesion"]) == ("1", "", "")
        assert series["error"].startswith("In progress")
    expect(page.locator(".image-label")).to_have_text("clear")


def test_results_that_arrive_later_are_sorted(held: HeldServer, open_page: Open) -> None:
    page = visit(open_page(url(held)))
    with held.hold():
        choose(page, *pictures(3))
        held.wait_for_calls(3)
        page.get_by_role("button", name="Probability of lesion").click()
        page.get_by_role("button", name="picture 1.png").focus()
    expect_statuses(page, ["Done"] * 3)
    expect(page.locator(".files-list tbody th").first).to_have_text("picture 2.png")
    assert [row[0] for row in cells(page)] == ["3", "2", "1"]
    expect(page.get_by_role("button", name="picture 1.png")).to_be_focused()


def test_four_requests_are_in_flight_and_all_can_be_cancelled(held: HeldServer, open_page: Open) -> None:
    page = visit(open_page(url(held)))
    with held.hold():
        choose(page, *pictures(6))
        held.wait_for_calls(4)
        expect_statuses(page, [*["In progress"] * 4, *["Waiting"] * 2])
        expect(page.get_by_role("progressbar")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        expect_statuses(page, ["Canceled"] * 6)
        expect(page.get_by_role("progressbar")).to_be_hidden()
    page.get_by_role("button", name="Send the remaining 6").click()
    expect_statuses(page, ["Done"] * 6)
    expect(page.get_by_role("button", name="Send the remaining")).to_be_hidden()


def test_files_can_be_removed_while_they_are_classified(held: HeldServer, open_page: Open) -> None:
    page = visit(open_page(url(held)))
    with held.hold():
        choose(page, *pictures(2))
        held.wait_for_calls(2)
        page.get_by_role("button", name="Remove all").click()
        expect(page.get_by_role("heading", level=2)).to_be_hidden()
        held.wait_for_calls(0)
    classify(page, "other.png", encoded(even(240)))
    expect(page.locator(".files-list")).to_be_hidden()
    assert [row[1] for row in cells(page)] == ["other.png"]


def test_a_busy_server_is_asked_again_by_a_button(held: HeldServer, open_page: Open) -> None:
    page = visit(open_page(url(held)))
    client = RestClient(url(held), {})

    def call() -> Reply:
        return client.post("/v1/models/lesions:classify", encoded(even(1)), Content_Type="image/png")

    with ThreadPoolExecutor() as threads:
        with held.hold():
            calls = [threads.submit(call) for _ in range(LIMIT)]
            held.wait_for_calls(LIMIT)
            choose(page, *pictures(2))
            expect_statuses(page, ["The server is busy"] * 2)
        assert {call.result().status for call in calls} == {200}
    sent = held.refused("calls")
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    expect_statuses(page, ["Done", "The server is busy"])
    page.get_by_role("button", name="Send the remaining 1").click()
    expect_statuses(page, ["Done", "Done"])
    assert held.refused("calls") == sent


def test_everything_works_by_keyboard(held: HeldServer, open_page: Open) -> None:
    page = visit(open_page(url(held)))
    choose(page, ("dark.png", encoded(even(10))), ("bright.png", encoded(even(240))))
    expect_statuses(page, ["Done", "Done"])
    with page.expect_file_chooser():
        tab_to(page, "Choose images")
        page.keyboard.press("Enter")
    tab_to(page, "bright.png")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="bright.png", level=2)).to_be_visible()
    tab_to(page, "No map")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".image-stage g rect")).to_have_count(49)
    tab_to(page, "Opacity")
    page.keyboard.press("End")
    expect(page.locator(".image-stage g")).to_have_attribute("opacity", "1")
    tab_to(page, "Compute")
    page.keyboard.press("Space")
    expect(page.locator(".image-channels canvas")).to_have_count(1)
    tab_to(page, "Threshold on the probability of lesion")
    page.keyboard.press("End")
    expect(page.locator(".image-label")).to_have_text("clear")
    tab_to(page, "balanced")
    page.keyboard.press("Space")
    expect(page.locator(".image-label")).to_have_text("lesion")


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until the control with this name has the focus."""
    script = "() => document.activeElement.labels?.[0]?.innerText.trim() ?? document.activeElement.innerText.trim()"
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate(script) == name:
            return
    pytest.fail(f"Tab does not reach {name}")


@pytest.mark.parametrize(("language", "theme", "size"), [("en", "light", "desktop"), ("zh", "dark", "phone")])
def test_axe_finds_nothing(held: HeldServer, open_page: Open, language: str, theme: str, size: str) -> None:
    page = visit(open_page(url(held), language=language, theme=theme, size=size), language=language)
    classify(page, "bright.png", encoded(even(240)))
    assert violations(page) == []
    page.locator("input[value=occlusion]").check()
    expect(page.locator(".image-legend")).to_be_visible()
    page.locator(".image-features button").click()
    expect(page.locator(".image-channels canvas")).to_have_count(1)
    for summary in page.locator("summary").all():
        summary.click()
    choose(page, ("broken.png", b"nothing"))
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []
    page.locator(".files-list button", has_text="bright.png").click()
    expect(page.locator(".image-decision")).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
