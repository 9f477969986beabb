"""Model files that must not be served: damaged, malicious, unlisted or unsigned ones."""

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from samples import onnx_models
from servers.model_folder import OK, POLL, Live, Load, ModelFolder
from servers.server_process import REPOSITORY
from waiting import wait_until


def manifest_with(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Returns the chest X-ray model with a changed manifest."""
    model = onnx.load(REPOSITORY / "models/chest-xray/1/model.onnx")
    (entry,) = [entry for entry in model.metadata_props if entry.key == "medserve.manifest"]
    manifest = json.loads(entry.value)
    change(manifest)
    entry.value = json.dumps(manifest)
    return bytes(model.SerializeToString())


def nan_threshold(manifest: dict[str, Any]) -> None:
    manifest["image_classification"]["operating_points"][0]["threshold"] = "NaN"


def other_probabilities(manifest: dict[str, Any]) -> None:
    manifest["reference"][0]["probabilities"] = [0.5, 0.5]


GOOD = onnx_models.add(7).SerializeToString()


def hostile_files(models: ModelFolder, outside: Path) -> dict[tuple[str, str], str]:
    """Fills a repository with files that cannot be served; returns the expected reasons in the index."""
    outside.mkdir()
    (outside / "model.onnx").write_bytes(GOOD)
    (outside / "numbers").write_bytes(np.float32(7).tobytes())
    chest_xray = (REPOSITORY / "models/chest-xray/1/model.onnx").read_bytes()
    found: dict[tuple[str, str], str] = {}

    def add(name: str, content: bytes | None, reason: str, version: str = "1") -> Path:
        found[name, version] = reason
        path = models.path(name, version)
        path.parent.mkdir(parents=True)
        if content is not None:
            path.write_bytes(content)
        return path

    add("half", chest_xray[: len(chest_xray) // 2], "ONNX Runtime cannot load the model")
    add("text", b"no model", "ONNX Runtime cannot load the model")
    add("empty", b"", "ONNX Runtime cannot load the model")
    add("oversized", bytes(2 * 1024 * 1024), "it has 2097152 bytes, at most 1048576 are allowed")
    add(
        "nan-threshold",
        manifest_with(nan_threshold),
        "image_classification.operating_points.threshold is NaN, expected a number",
    )
    add("no-manifest", manifest_with(lambda manifest: manifest.pop("schema_version")), "schema_version is 0")
    add("parity", manifest_with(other_probabilities), "a probability differs by")
    nested = onnx.load_from_string(chest_xray)
    nested.metadata_props[0].value = "[" * 100_000
    add("nested", nested.SerializeToString(), "is not a valid manifest")
    huge = onnx_models.identity("FP32", ["batch", 1 << 20, 1 << 20])
    add("huge", huge.SerializeToString(), "a row of x has 4398046511104 bytes")
    add("link-out", None, "it is a link that points outside the repository").symlink_to(outside / "model.onnx")
    add("up", None, "it is a link that points outside the repository").symlink_to("../../../outside/model.onnx")
    add("dangling", None, "is neither a regular file nor a link to one").symlink_to("nothing")
    add("loop", None, "is neither a regular file nor a link to one").symlink_to("model.onnx")
    add("folder", None, "it is not a regular file").mkdir()
    os.mkfifo(add("fifo", None, "is neither a regular file nor a link to one"))
    os.mkfifo(add("fifo-in-folder", GOOD, "'pipe' in its folder is neither").with_name("pipe"))
    add("device", None, "it is a link that points outside the repository").symlink_to("/dev/zero")
    add("many", GOOD, "more than 1000 files")
    for number in range(1001):
        (models.folder / f"many/1/{number}").touch()
    found["linked", "1"] = "it is a link that points outside the repository"
    (models.folder / "linked").mkdir()
    (models.folder / "linked/1").symlink_to(outside)
    add("version", GOOD, "'0' is not a valid version", "0")
    add("version", GOOD, "'1a' is not a valid version", "1a")
    add("b\u00e4d\n<name>", GOOD, "is not a valid model name")
    found["b\\xe4d\\n<name>", "1"] = found.pop(("b\u00e4d\n<name>", "1"))
    for name, location in {"absolute": str(outside / "numbers"), "parent": "../../../outside/numbers"}.items():
        add(f"external-{name}", onnx_models.external(location), "External data path")
    add("external-link", onnx_models.external("numbers"), "External data path").with_name("numbers").symlink_to(
        outside / "numbers"
    )
    add("external-missing", onnx_models.external("numbers"), "External data path does not exist")
    return found


def test_hostile_files_are_refused_without_side_effects(serve: Callable[..., Live], tmp_path: Path) -> None:
    live = serve(*POLL, "--max-model-mib", "1", prepare=lambda m: m.publish("good", 1, onnx_models.add(1)))
    with Load(live.server.target, "good", lambda: 1, lambda: 1) as load:
        expected = hostile_files(live.models, tmp_path / "outside")
        external_data = live.models.path("external-data", 1).with_name("numbers")
        external_data.parent.mkdir(parents=True)
        external_data.write_bytes(np.float32(5).tobytes())
        live.models.publish("external-data", 1, onnx_models.external("numbers"))
        wait_until(lambda: {*expected} <= {*live.caller.index()}, "every file to be scanned")
        for key, reason in expected.items():
            live.caller.wait_for_reason(*key, reason)
            assert live.caller.state(*key) == "UNAVAILABLE"
        wait_until(lambda: live.caller.state("external-data", 1) == "READY", "the model with external data next to it")
    assert load.wrong == []
    assert live.caller.number("external-data") == 5
    assert {*live.caller.index(ready=True)} == {("good", "1"), ("external-data", "1")}

    # Files are retried only after they change.
    failures = live.server.sample("medserve_model_load_failures_total")
    assert failures >= len(expected)
    for version in (2, 3):
        live.models.publish("good", version, onnx_models.add(version))
        live.caller.wait_for_number("good", version)
    assert live.server.sample("medserve_model_load_failures_total") == failures
    assert live.server.sample('medserve_model_refused{model="half",version="1"}') == 1
    live.models.publish("half", 1, GOOD)
    wait_until(lambda: live.caller.code("half") is OK, "the repaired model")
    assert 'medserve_model_refused{model="half"' not in live.server.metrics()
    shutil.rmtree(live.models.folder / "text")
    wait_until(lambda: ("text", "1") not in live.caller.index(), "the removed model to leave the index")
    assert 'model="text"' not in live.server.metrics()
    assert "<name>" not in live.server.metrics()
    log = live.log.read_text()
    assert all(line[:2] == "20" for line in log.splitlines() if "refused" in line), "no name starts a log line"
    assert all(f"{name}/{version} is refused" in log for name, version in expected)
    assert str(tmp_path) not in "".join(reason for _, reason in live.caller.index().values() if "Ext" not in reason)


def test_models_must_match_their_checksums(serve: Callable[..., Live]) -> None:
    def listing(models: ModelFolder) -> str:
        files = sorted(models.folder.glob("*/*/model.onnx"))
        return "".join(f"{sha256(path.read_bytes()).hexdigest()}  {'/'.join(path.parts[-3:])}\n" for path in files)

    def prepare(models: ModelFolder) -> None:
        models.publish("a", 1, onnx_models.add(1))
        (models.folder / "SHA256SUMS").write_text(listing(models))

    live = serve(*POLL, prepare=prepare)
    live.models.publish("a", 1, onnx_models.add(2))
    live.models.publish("b", 1, onnx_models.add(3))
    live.caller.wait_for_reason("a", 1, "but SHA256SUMS says")
    live.caller.wait_for_reason("b", 1, "SHA256SUMS does not list it")
    assert live.caller.number("a") == 1
    (live.models.folder / "SHA256SUMS").write_text(listing(live.models))
    wait_until(lambda: live.caller.code("b") is OK, "the model whose checksum was added")
    live.caller.wait_for_number("a", 2)
    # Only one file is listed; files next to it are not verified.
    live.models.publish("c", 1, onnx_models.external("numbers"))
    live.models.path("c", 1).with_name("numbers").write_bytes(np.float32(5).tobytes())
    (live.models.folder / "SHA256SUMS").write_text(listing(live.models))
    live.caller.wait_for_reason("c", 1, "External data path numbers is not read")


def test_only_signed_models_are_served(serve: Callable[..., Live], tmp_path: Path) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = tmp_path / "public.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def sign(path: Path, by: Ed25519PrivateKey = key) -> None:
        path.with_name("model.onnx.sig").write_bytes(by.sign(path.read_bytes()))

    live = serve(
        *POLL,
        "--require-signed",
        str(public),
        prepare=lambda models: sign(models.publish("signed", 1, onnx_models.add(1))),
    )
    assert live.caller.number("signed") == 1
    unsigned = live.models.publish("unsigned", 1, onnx_models.add(2))
    sign(live.models.publish("stranger", 1, onnx_models.add(3)), other)
    sign(live.models.publish("external", 1, onnx_models.external("numbers")))
    live.models.path("external", 1).with_name("numbers").write_bytes(np.float32(5).tobytes())
    live.models.publish("signed", 1, onnx_models.add(4))  # the signature is that of the replaced file
    for name, reason in {
        "unsigned": "it is not signed: there is no model.onnx.sig in its folder",
        "stranger": "model.onnx.sig is not a valid signature of it with the key of --require-signed",
        "signed": "model.onnx.sig is not a valid signature of it with the key of --require-signed",
        "external": "External data path numbers is not read",
    }.items():
        live.caller.wait_for_reason(name, 1, reason)
    assert {*live.caller.index(ready=True)} == {("signed", "1")}
    assert live.caller.number("signed") == 1
    sign(unsigned)
    sign(live.models.path("signed", 1))
    wait_until(lambda: live.caller.code("unsigned") is OK, "the model that was signed")
    live.caller.wait_for_number("signed", 4)
