"""The list of models with their cards, and the view of a model by its tensors."""

import json
from pathlib import Path

import pytest

from servers.server_process import ServerProcess
from web.browser import Open, Page, expect
from web.shown_commands import run_shown


def test_the_list_shows_every_model_with_its_card(site: ServerProcess, open_page: Open) -> None:
    page = open_page(site.http_url).visit("/")
    expect(page.get_by_role("article")).to_have_count(3)
    assert "Not a medical device" in page.locator("header").inner_text()
    entry = page.get_by_role("article").filter(has_text="chest-xray")
    expect(entry.get_by_text("Image classification")).to_be_visible()
    expect(entry.get_by_text("runs on cpu")).to_be_visible()
    entry.locator("summary").click()
    card = entry.locator(".model-card")
    for text in ("Intended use", "Apache-2.0", "pneumonia", "SHA-256 of the model file", "scikit-learn"):
        expect(card.get_by_text(text).first).to_be_visible()
    row = card.get_by_role("row").filter(has_text="AUROC")
    expect(row.get_by_role("cell")).to_have_text([r"0.999 [0.997, 1.000]", r"0.981 [0.970, 0.991]"])
    expect(card.get_by_role("row").filter(has_text="sensitivity-0.95 (default)")).to_contain_text("0.539")
    risk = page.get_by_role("article").filter(has_text="breast-cancer-risk")
    risk.locator("summary").click()
    expect(risk.get_by_text("AUROC by 5 years").first).to_be_visible()
    expect(risk.get_by_role("heading", name="Performance in subgroups")).to_be_visible()


def test_the_language_can_be_changed(site: ServerProcess, open_page: Open) -> None:
    page = open_page(site.http_url).visit("/")
    page.get_by_label("Language").select_option("zh")
    expect(page.get_by_role("heading", name="模型", exact=True)).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_role("link", name="状态").click()
    expect(page.get_by_role("heading", name="服务器")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="服务器")).to_be_visible()


def test_a_model_without_a_manifest_is_called_with_tensors(site: ServerProcess, open_page: Open) -> None:
    page = open_page(site.http_url).visit("/")
    page.get_by_role("link", name="Show its tensors: two-inputs").click()
    expect(page.get_by_role("heading", name="two-inputs")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="FP32").first).to_contain_text("[any, 2]")
    page.get_by_role("button", name="Send").click()
    answer = page.locator(".answer")
    expect(answer.get_by_role("row").nth(1)).to_contain_text("0, 0")
    changed = {
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [5, 7]},
            {"name": "b", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
        ]
    }
    page.get_by_label("Request (JSON)").fill(json.dumps(changed))
    page.get_by_role("button", name="Send").click()
    expect(answer.get_by_role("row").nth(1)).to_contain_text("6, 9")
    page.get_by_label("Request (JSON)").fill("{")
    expect(page.get_by_text("The request is not JSON")).to_be_visible()
    page.get_by_label("Request (JSON)").fill('{"inputs": []}')
    page.get_by_role("button", name="Send").click()
    expect(answer.get_by_role("alert")).to_contain_text("The server did not accept the input.")


@pytest.mark.parametrize("name", ["curl", "Python", "Node"])
def test_the_commands_run_as_shown(site: ServerProcess, open_page: Open, tmp_path: Path, name: str) -> None:
    page = open_page(site.http_url).visit("/#/models/two-inputs/1")
    details = page.locator("details").filter(has_text="The same request from a program")
    assert json.loads(run_shown(details, name, tmp_path))["outputs"][0]["data"] == [0, 0]


def test_an_unknown_model_is_reported(site: ServerProcess, open_page: Open) -> None:
    page = open_page(site.http_url).visit("/#/models/none/7")
    expect(page.get_by_role("heading", name="Model not found")).to_be_visible()
    page.get_by_role("link", name="← All models").click()
    expect(page.get_by_role("article")).to_have_count(3)
    page.goto(f"{site.http_url}/#/models/%/1")
    expect(page.get_by_role("heading", name="Model not found")).to_be_visible()


@pytest.mark.parametrize(("view", "name"), [("image", "chest-xray"), ("patient", "breast-cancer-risk")])
def test_a_view_without_its_style_is_reported(site: ServerProcess, open_page: Open, view: str, name: str) -> None:
    opened = open_page(site.http_url)
    opened.page.route(f"**/views/{view}/style.css", lambda route: route.abort())
    page = opened.visit(f"/#/models/{name}/1")
    alert = page.locator("main").get_by_role("alert")
    expect(alert).to_contain_text("The style of this view cannot be loaded.")
    page.unroute_all()
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator("#image-files, .patient-form")).to_be_attached()


def bytes_received(page: Page) -> list[int]:
    """Returns the list to which the size of each response of the page, with its headers, will be added."""
    sizes: list[int] = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    return sizes


def test_the_first_view_is_small(site: ServerProcess, open_page: Open) -> None:
    opened = open_page(site.http_url)
    sizes = bytes_received(opened.page)
    opened.visit("/")
    opened.page.wait_for_load_state("networkidle")
    assert len(sizes) >= len(opened.requests)
    assert sum(sizes) <= 100_000
