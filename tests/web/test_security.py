"""Tokens, markup in manifests, and a server that goes away."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf.message import Message
from onnx import TensorProto, helper

from calls.rest_client import RestClient
from medserve_proto.v1 import manifest_pb2 as pb
from medserve_server.security.auth import new_token
from samples import explained_models, onnx_models
from servers.server_process import ServerProcess, free_port, running_server
from web.browser import Open, expect, shown

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'><b>bold</b>"


@pytest.fixture(scope="module")
def tokens() -> dict[str, tuple[str, str]]:
    """Token and line of the token file by scopes."""
    return {scopes: new_token(scopes.replace(",", "-"), scopes) for scopes in ("infer,metadata", "infer")}


@pytest.fixture(scope="module")
def guarded(
    tokens: dict[str, tuple[str, str]], hostile: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Serves models with hostile manifests to clients with a token."""
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text("".join(f"{line}\n" for _, line in tokens.values()))
    with running_server("--models", str(hostile), "--transport", "grpcio", "--tokens", str(file)) as started:
        yield started


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with markup in every text of their manifests and in the names of their tensors."""
    folder = tmp_path_factory.mktemp("hostile")
    for build, manifest in (
        (explained_models.lesions, explained_models.lesions_manifest()),
        (explained_models.decay, explained_models.decay_manifest()),
    ):
        filled = with_texts(manifest)
        spoil(filled)
        model = build(filled)
        rename(model, "feature_map.pool")
        onnx_models.save(folder, manifest.name, model)
    kind = TensorProto.FLOAT
    identity = helper.make_node("Identity", [f"x{MARKUP}"], [f"y{MARKUP}"])
    onnx_models.save(
        folder, "tensors", onnx_models.make([identity], {f"x{MARKUP}": (kind, [2])}, {f"y{MARKUP}": (kind, [2])})
    )
    return folder


def with_texts(manifest: pb.Manifest) -> pb.Manifest:
    """Returns the manifest with every part that a card shows."""
    manifest.title, manifest.description, manifest.intended_use, manifest.license = "title", "about", "use", "license"
    manifest.training.MergeFrom(
        pb.Training(recipe="recipe", data="data", data_sha256="hash", date="date", packages={"package": "1"})
    )
    interval = pb.ConfidenceInterval(low=0.1, high=0.9, method="method")
    metric = pb.Metric(name="metric", value=0.5, interval=interval)
    for subgroup in ("", "group"):
        manifest.evaluations.add(data="data", split="split", size=9, metrics=[metric], subgroup=subgroup)
    if manifest.HasField("image_classification"):
        task = manifest.image_classification
        task.operating_points.add(name="point", positive_label=task.labels[1], threshold=0.5, chosen_on="split")
        task.default_operating_point = "point"
    return manifest


def spoil(message: Message) -> None:
    """Appends markup to every text of a message except the model's name; equal texts stay equal."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in list(value):
                value[key + MARKUP] = value.pop(key) + MARKUP
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                spoil(part)
        elif field.type == field.TYPE_STRING and field.full_name != "medserve.v1.Manifest.name":
            if field.is_repeated:
                value[:] = [text + MARKUP for text in value]
            else:
                setattr(message, field.name, value + MARKUP)


def rename(model: onnx.ModelProto, tensor: str) -> None:
    """Appends markup to the name of a tensor, wherever it occurs."""
    for node in model.graph.node:
        node.input[:] = [name + MARKUP * (name == tensor) for name in node.input]
        node.output[:] = [name + MARKUP * (name == tensor) for name in node.output]
    for output in model.graph.output:
        output.name += MARKUP * (output.name == tensor)


def test_a_token_is_asked_for_and_kept_in_memory(
    guarded: ServerProcess, open_page: Open, tokens: dict[str, tuple[str, str]]
) -> None:
    page = open_page(guarded.http_url).visit("/")
    expect(page.locator("main").get_by_role("alert")).to_contain_text("requires a valid token")
    page.get_by_label("Token", exact=True).fill("wrong")
    page.get_by_role("button", name="Use token").click()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("unknown token")
    page.get_by_label("Token", exact=True).fill("wörng")
    page.get_by_role("button", name="Use token").click()
    expect(page.get_by_text("printable ASCII characters")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(tokens["infer,metadata"][0])
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_have_count(3)
    page.get_by_role("link", name="Show its tensors").click()
    page.get_by_text("The same request from a program").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("Bearer $MEDSERVE_TOKEN")
    assert tokens["infer,metadata"][0] not in page.content()
    assert page.context.storage_state() == {"cookies": [], "origins": []}
    page.reload()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("requires a valid token")


def test_the_status_requires_the_scope_metadata(guarded: ServerProcess, tokens: dict[str, tuple[str, str]]) -> None:
    replies: list[Any] = [RestClient(guarded.http_url, {}).get("/v1/status")]
    for token, _ in tokens.values():
        replies.append(RestClient(guarded.http_url, {"Authorization": f"Bearer {token}"}).get("/v1/status"))
    assert [reply.status for reply in replies] == [401, 200, 403]
    assert RestClient(guarded.http_url, {}).get("/status").status == 200  # the page, which asks for a token


@pytest.mark.parametrize("language", ["en", "zh"])
def test_markup_in_a_manifest_is_shown_as_text(
    guarded: ServerProcess, open_page: Open, tokens: dict[str, tuple[str, str]], language: str
) -> None:
    page = open_page(guarded.http_url, language=language).visit("/")
    page.locator("#token").fill(tokens["infer,metadata"][0])
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_have_count(3)
    for summary in page.locator("summary").all():
        summary.click()
    expect(page.locator(".model-card")).to_have_count(2)
    expect(page.locator("main")).to_contain_text(f"title{MARKUP}")
    for text in ("about", "use", "license", "recipe", "data", "hash", "metric", "method", "point", "group", "package"):
        expect(page.locator("main")).to_contain_text(f"{text}{MARKUP}")
    for name in ("lesions", "decay", "tensors"):
        page.goto(f"{guarded.http_url}/#/models/{name}/1")
        expect(page.locator("main .muted").first).to_contain_text(name)
        shown(page)
        page.wait_for_load_state("networkidle")
        assert page.locator("main img[src=x], main script, main b").count() == 0
    expect(page.locator("main")).to_contain_text(f"x{MARKUP}")


def test_a_server_that_stops_is_reported_and_can_be_retried(models: Path, open_page: Open) -> None:
    flags = ("--models", str(models), "--transport", "grpcio", "--http-port", str(free_port()))
    with running_server(*flags) as server:
        page = open_page(server.http_url).visit("/")
        expect(page.get_by_role("article")).to_have_count(3)
    page.get_by_role("link", name="Show its tensors").click()
    alert = page.locator("main").get_by_role("alert")
    expect(alert).to_contain_text("cannot be reached")
    with running_server(*flags):
        alert.get_by_role("button", name="Try again").click()
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".answer")).to_contain_text("0, 0")
