"""README.md and docs/: links are valid, both READMEs have the same content, and the site has every page."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from documented import PAGES, blocks
from medserve_proto.inference import grpc_service_pb2
from medserve_proto.v1 import (
    image_classification_pb2,
    image_segmentation_pb2,
    manifest_pb2,
    model_catalog_pb2,
    patient_risk_pb2,
)
from programs import environment_python
from servers.server_process import REPOSITORY

CHINESE = "README.zh.md"
CONTRACTS = (
    image_classification_pb2,
    image_segmentation_pb2,
    patient_risk_pb2,
    model_catalog_pb2,
    manifest_pb2,
    grpc_service_pb2,
)
OPENAPI = REPOSITORY / "server/medserve_server/rest/openapi.json"
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s:]+)\)")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub assigns to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, CHINESE])
def test_links_lead_to_existing_files_and_headings(page: str) -> None:
    path = REPOSITORY / page
    for link in _LINK.findall(prose(path)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_both_readmes_have_the_same_commands_and_figures() -> None:
    assert [block.text for block in blocks(CHINESE)] == [block.text for block in blocks("README.md")]
    figures = [sorted(re.findall(r"\d+(?:[.,]\d+)+", prose(REPOSITORY / page))) for page in ("README.md", CHINESE)]
    assert figures[0] == figures[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site built by `make docs`."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [str(environment_python("docs").parent / "mkdocs"), "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def contract_names() -> Iterator[str]:
    for contract in CONTRACTS:
        descriptor = contract.DESCRIPTOR
        for one in (*descriptor.services_by_name.values(), *descriptor.message_types_by_name.values()):
            yield one.full_name


def test_site_has_every_service_message_path_and_client_name(site: Path) -> None:
    reference = (site / "grpc-reference.html").read_text("utf-8")
    assert [name for name in contract_names() if f'id="{name}"' not in reference] == []
    paths = json.loads(OPENAPI.read_text())["paths"]
    reference = (site / "rest-reference.html").read_text("utf-8")
    assert [path for path in paths if f" {path}</code>" not in reference] == []
    reference = (site / "python.html").read_text("utf-8")
    assert {"classify", "segment", "predict_risk"} <= set(re.findall(r'id="medserve_client\.Client\.(\w+)"', reference))


def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^"\s>]+)', text)
        loaded += re.findall(r'<link[^>]* href="?([^"\s>]+)', text)
        assert [address for address in loaded if re.match(r"(?:https?:)?//", address)] == [], page
