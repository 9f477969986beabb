"""The pages /status and /docs."""

from calls.rest_client import RestClient
from servers.server_process import ServerProcess
from web.browser import Open, expect


def test_the_status_shows_models_and_requests(site: ServerProcess, open_page: Open) -> None:
    page = open_page(site.http_url).visit("/status")
    server = page.locator("#server")
    expect(server).to_contain_text("medserve 0.1.0")
    expect(server).to_contain_text("grpcio")
    row = page.locator("#models").get_by_role("row").filter(has_text="two-inputs")
    expect(row).to_contain_text("Ready")
    inputs = [{"name": name, "datatype": "FP32", "shape": [1, 2], "data": [0, 0]} for name in "ab"]
    assert RestClient(site.http_url, {}).infer("two-inputs", *inputs).status == 200
    expect(page.locator("#windows").get_by_role("row").filter(has_text="last 300 s")).to_contain_text("ms")
    expect(page.get_by_role("img", name="Requests per second")).to_be_visible()
    expect(page.get_by_role("img", name="Latency in ms")).to_be_visible()
    assert page.locator("#charts path.line").count() == 4


def test_the_reference_is_complete_and_can_be_searched(site: ServerProcess, open_page: Open) -> None:
    document = RestClient(site.http_url, {}).get("/openapi.json").json
    opened = open_page(site.http_url)
    page = opened.visit("/docs")
    paths = page.locator(".operation summary code").all_inner_texts()
    assert paths == [path for path, methods in document["paths"].items() for _ in methods]
    assert page.locator(".schema summary").all_inner_texts() == list(document["components"]["schemas"])
    page.get_by_label("Search").fill("predictRisk versions")
    expect(page.locator("details:visible")).to_have_count(1)
    page.get_by_label("Search").fill("")
    page.goto(f"{site.http_url}/docs#%")  # names no entry
    page.goto(f"{site.http_url}/docs#ImageClassification_Classify")
    operation = page.locator("#ImageClassification_Classify")
    expect(operation).to_have_attribute("open", "")
    expect(operation.get_by_role("row").filter(has_text="topK")).to_contain_text("query")
    expect(operation.locator("pre").first).to_contain_text('"images"')
    operation.get_by_role("link", name="ClassifyResponse").click()
    expect(page.locator("#schema-ClassifyResponse")).to_have_attribute("open", "")
    assert page.locator("a[href^='http']").evaluate_all("links => links.every(link => link.rel.includes('noreferrer'))")
