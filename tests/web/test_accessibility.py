"""Accessibility: rules of axe-core, the keyboard alone, and the width of a phone."""

import pytest

from servers.server_process import ServerProcess
from web.axe import violations
from web.browser import Open, Page, expect

FOCUSED = """() => {
  const node = document.activeElement;
  return [[node.textContent, node.ariaLabel, node.id], getComputedStyle(node).outlineStyle];
}"""
"""Names of the element with the focus, and the style of its outline."""
PATHS = ("/", "/#/models/two-inputs/1", "/status", "/docs")


@pytest.mark.parametrize(("theme", "language"), [("light", "en"), ("dark", "zh")])
def test_no_page_violates_a_rule(site: ServerProcess, open_page: Open, theme: str, language: str) -> None:
    opened = open_page(site.http_url, language=language, theme=theme)
    for path in PATHS:
        page = opened.visit(path)
        for summary in page.locator("summary").all()[:3]:
            summary.click()
        expect(page.locator(".loading")).to_have_count(0)
        assert violations(page) == [], path


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_fits_a_phone(site: ServerProcess, open_page: Open, language: str) -> None:
    opened = open_page(site.http_url, language=language, size="phone")
    for path in PATHS:
        page = opened.visit(path)
        for summary in page.locator("summary").all()[:3]:
            summary.click()
        expect(page.locator(".loading")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path


def press_until(page: Page, name: str) -> None:
    """Presses Tab until an element with this text or label has the focus, which must be visible."""
    for _ in range(60):
        page.keyboard.press("Tab")
        names, outline = page.evaluate(FOCUSED)
        if name in names:
            assert outline != "none"
            return
    pytest.fail(f"Tab never reaches {name}")


def test_everything_can_be_done_with_the_keyboard(site: ServerProcess, open_page: Open) -> None:
    page = open_page(site.http_url).visit("/")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to content")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    press_until(page, "Model card: Relapse-free survival after node-positive breast cancer")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Intended use")).to_be_visible()
    press_until(page, "Show its tensors: two-inputs")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="two-inputs")).to_be_visible()
    expect(page.locator("main")).to_be_focused()
    press_until(page, "request")
    press_until(page, "Send")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Answer")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_focused()
    press_until(page, "The same request from a program")
    page.keyboard.press("Enter")
    press_until(page, "curl")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.get_by_role("tabpanel")).to_contain_text("urlopen")
