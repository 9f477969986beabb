"""Chromium, driven by Playwright, and what a test checks about every page that it opens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from programs import program
from waiting import PATIENCE

try:
    from playwright.sync_api import Browser, Dialog, Locator, Page, Route, expect, sync_playwright
except ImportError:
    pytest.skip("needs the package playwright: make .venv-dev/installed", allow_module_level=True)

__all__ = ["Browser", "Locator", "Open", "Opened", "Page", "Route", "chromium", "expect", "opened"]

FLAGS = (
    "--no-sandbox",  # which root cannot use
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MILLISECONDS = PATIENCE * 1000
LOCALES = {"en": "en-US", "zh": "zh-CN"}
SIZES = {"desktop": (1280, 800), "phone": (320, 640)}

expect.set_options(timeout=MILLISECONDS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Runs a browser until the block ends."""
    path = program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=MILLISECONDS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page of the server in a separate browser context."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    """Errors of scripts, dialogs, violations of the content security policy."""
    requests: list[str] = field(default_factory=list)
    """URLs of all requests except those for data: and blob:, which stay in the browser."""

    def visit(self, path: str) -> Page:
        """Opens a path and waits until it shows a view, or the reason why it cannot."""
        self.page.goto(self.url + path)
        shown(self.page)
        return self.page

    def dismiss(self, dialog: Dialog) -> None:
        """Closes a dialog, which no page of the server opens."""
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check(self) -> None:
        """Checks what holds for every page: no error, and no request to another origin."""
        foreign = [url for url in self.requests if urlsplit(url).netloc != urlsplit(self.url).netloc]
        assert (self.problems, foreign) == ([], [])


Open = Callable[..., Opened]
"""Type of the fixture `open_page`: returns an empty page of a server, whose requests and errors are checked."""


def shown(page: Page) -> None:
    """Waits until the page has finished loading its view."""
    expect(page.locator("main h1, main [role=alert]").first).to_be_visible()
    expect(page.locator(".loading")).to_have_count(0)


@contextmanager
def opened(
    browser: Browser, url: str, language: str = "en", theme: str = "light", size: str = "desktop"
) -> Iterator[Opened]:
    """Opens an empty page in a new context, which is checked and closed when the block ends."""
    width, height = SIZES[size]
    context = browser.new_context(
        locale=LOCALES[language],
        color_scheme="dark" if theme == "dark" else "light",
        viewport={"width": width, "height": height},
        accept_downloads=True,
    )
    context.set_default_timeout(MILLISECONDS)
    page = context.new_page()
    found = Opened(page, url)
    page.on("pageerror", lambda error: found.problems.append(str(error)))
    page.on("dialog", found.dismiss)
    page.on("console", lambda message: found.problems.extend(problem(message.type, message.text)))
    page.on("request", lambda request: found.requests.extend([request.url] * request.url.startswith("http")))
    try:
        yield found
        found.check()
    finally:
        context.close()


def problem(kind: str, text: str) -> list[str]:
    """Returns the text of an error in the console; a response with an error status is none."""
    return [text] if kind == "error" and not text.startswith("Failed to load resource") else []
