"""The commands that the image view shows run as shown, for every kind of request."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medserve_client import Client, ImageReasons
from medserve_server.security.auth import new_token
from samples.dicom_files import dicom
from servers.server_process import ServerProcess, running_server
from web.browser import Open, Page, expect
from web.image_view.view import classify, encoded, even, save_lesions, visit
from web.shown_commands import run_shown

NAME = "it's a scan.dcm"
SERIES = dicom(np.stack([even(10), even(240)]), frames=2)
PICTURE = "picture.png"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves on a transport where gRPC and the page have different ports."""
    folder = tmp_path_factory.mktemp("models")
    save_lesions(folder)
    with running_server("--models", str(folder), "--transport", "grpcio") as started:
        yield started


def run(page: Page, name: str, folder: Path, **variables: str) -> str:
    return run_shown(page.locator("details.commands"), name, folder, **variables)


@pytest.mark.parametrize("name", ["curl", "Node", "Python"])
def test_a_picture(site: ServerProcess, open_page: Open, tmp_path: Path, name: str) -> None:
    (tmp_path / PICTURE).write_bytes(encoded(even(240)))
    page = visit(open_page(site.http_url))
    classify(page, PICTURE, encoded(even(240)))
    output = run(page, name, tmp_path)
    if name == "Python":
        assert output.startswith("lesion [('lesion', 0.847")
    else:
        assert json.loads(output)["results"][0]["decision"]["label"] == "lesion"


@pytest.mark.parametrize("name", ["curl", "Node", "Python"])
def test_a_frame_with_an_occlusion_map(site: ServerProcess, open_page: Open, tmp_path: Path, name: str) -> None:
    (tmp_path / NAME).write_bytes(SERIES)
    page = visit(open_page(site.http_url))
    classify(page, NAME, SERIES)
    page.get_by_label("Frame", exact=True).press("End")
    expect(page.locator(".image-label")).to_have_text("lesion")
    page.get_by_role("radio", name="Occlusion").check()
    expect(page.locator(".image-legend")).to_be_visible()
    output = run(page, name, tmp_path)
    with Client(site.target) as client:
        reasons = ImageReasons(label="lesion", occlusion=True)
        occlusion = client.classify(SERIES, "lesions", frame=1, reasons=reasons).results[0].occlusion
    assert occlusion is not None
    if name == "Python":
        label, _, values = output.partition("\n")
        assert label.startswith("lesion ")
        assert values == f"{occlusion.values}\n"
    else:
        (result,) = json.loads(output)["results"]
        assert result["occlusion"]["label"] == "lesion"
        assert result["occlusion"]["values"] == pytest.approx(occlusion.values.ravel().tolist(), abs=1e-6)


def test_feature_maps(site: ServerProcess, open_page: Open, tmp_path: Path) -> None:
    (tmp_path / PICTURE).write_bytes(encoded(even(255)))
    page = visit(open_page(site.http_url))
    classify(page, PICTURE, encoded(even(255)))
    page.get_by_role("button", name="Compute").click()
    expect(page.locator(".image-channels canvas")).to_have_count(1)
    assert run(page, "Python", tmp_path).endswith("[[[1. 1. 1.]\n  [1. 1. 1.]]]\n")
    (result,) = json.loads(run(page, "curl", tmp_path))["results"]
    assert result["featureMaps"][0]["layer"] == "pool"


def test_a_token_is_read_from_the_environment(open_page: Open, tmp_path: Path) -> None:
    save_lesions(tmp_path / "models")
    (tmp_path / PICTURE).write_bytes(encoded(even(240)))
    token, line = new_token("ward", "infer,metadata")
    (tmp_path / "tokens").write_text(line)
    flags = ("--models", str(tmp_path / "models"), "--transport", "envoy", "--tokens", str(tmp_path / "tokens"))
    with running_server(*flags) as server:
        opened = open_page(server.http_url)
        page = opened.visit("/#/models/lesions/1")
        page.get_by_label("Token", exact=True).fill(token)
        page.get_by_role("button", name="Use token").click()
        expect(page.locator("#image-files")).to_be_attached()
        classify(page, PICTURE, encoded(even(240)))
        page.get_by_role("radio", name="Class activation").check()
        expect(page.locator(".image-legend")).to_be_visible()
        for name in ("curl", "Python", "Node"):
            assert "lesion" in run(page, name, tmp_path, MEDSERVE_TOKEN=token)
        assert token not in page.content()
