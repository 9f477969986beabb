"""Checks a page with axe-core."""

from programs import node_modules
from servers.server_process import REPOSITORY
from web.browser import Page


def violations(page: Page) -> list[str]:
    """Returns the rules of axe-core that the page violates, each with the elements that do."""
    axe = node_modules(REPOSITORY / "tests/e2e/node") / "axe-core/axe.min.js"
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']}: {[node['html'][:150] for node in rule['nodes']]}" for rule in found]
