"""CONTRIBUTING.md and `make help` match the repository."""

import re

import pytest

from servers.server_process import REPOSITORY

CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
PACKAGES = ("server/medserve_server", "training/medserve_training", "client/medserve_client")
PATHS = {one for one in re.findall(r"`([\w./-]+)`", CONTRIBUTING) if "/" in one or one.endswith((".py", ".md"))}


@pytest.mark.parametrize("path", sorted(PATHS - {"NAME/VERSION/model.onnx"}))
def test_every_path_in_contributing_exists(path: str) -> None:
    """Paths are relative to the repository, or to a package in a paragraph about it."""
    places = [REPOSITORY, *(REPOSITORY / package for package in PACKAGES)]
    assert any((place / path).exists() for place in places)


def test_make_help_explains_every_target() -> None:
    text = (REPOSITORY / "Makefile").read_text("utf-8")
    targets = " ".join(re.findall(r"^\.PHONY: (.*)", text, re.MULTILINE)).split()
    explained = re.findall(r"^## ([\w-]+): .+\n(?:#.*\n)*\1:", text, re.MULTILINE)
    assert sorted(explained) == sorted(targets)
