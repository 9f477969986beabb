"""Models that are added, replaced and removed while the server runs."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import model_catalog_pb2
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from samples import onnx_models
from servers.model_folder import EXPLICIT, NOT_FOUND, OK, POLL, Live, Load, ModelFolder
from servers.server_process import refusal
from waiting import wait_until


@pytest.mark.parametrize("in_place", [False, True], ids=["new-versions", "in-place"])
def test_no_call_fails_while_models_are_swapped(serve: Callable[..., Live], in_place: bool) -> None:
    """15 swaps under load; every response is from a version that was served during the call."""
    live = serve(*POLL, "--version-policy", "latest:1", prepare=lambda m: m.publish("a", 1, onnx_models.add(1)))
    newest = published = 1
    with Load(live.server.target, "a", lambda: newest, lambda: published) as load:
        for number in range(2, 17):
            published = number
            live.models.publish("a", 1 if in_place else number, onnx_models.add(number))
            live.caller.wait_for_number("a", number)
            newest = number
        wait_until(lambda: load.answers > 100 or bool(load.wrong), "responses")
    assert load.wrong == []
    assert live.caller.index(ready=True) == {("a", "1" if in_place else "16"): ("READY", "")}
    assert live.log.read_text().count(" is now served, SHA-256") == 16


def test_replaced_models_release_all_resources(serve: Callable[..., Live]) -> None:
    """Threads, open files, series and memory after 30 swaps of an 8 MB model are as after 5 swaps."""

    def model(number: int) -> onnx.ModelProto:
        return onnx_models.add(number, size=2_000_000)

    live = serve(*POLL, "--version-policy", "latest:1", prepare=lambda m: m.publish("a", 1, model(1)))

    (pid,) = live.server.workers()

    def swap(number: int) -> None:
        live.models.publish("a", number, model(number))
        live.caller.wait_for_number("a", number)
        live.models.remove("a", number - 1)

    def series() -> set[str]:
        return {line.split(" ")[0].split('version="')[0] for line in live.server.metrics().splitlines()}

    def status(key: str) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])

    def files() -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208

    def versions() -> set[str]:
        found = live.server.metrics().split('model="a",version="')[1:]
        return {text.split('"')[0] for text in found}

    for number in range(2, 7):
        swap(number)
    wait_until(lambda: versions() == {"6"}, "the series of replaced versions to be removed")
    before = status("VmRSS"), status("Threads"), files(), len(series())
    for number in range(7, 32):
        swap(number)
    wait_until(lambda: versions() == {"31"}, "the series of replaced versions to be removed")
    wait_until(lambda: status("Threads") <= before[1], "the threads of replaced versions to end")
    assert status("VmRSS") - before[0] < 100_000, "KiB; 25 models of 8 MB would need 200,000"
    wait_until(lambda: files() <= before[2], "the connections of metrics to be closed")
    assert len(series()) == before[3]


def test_request_is_answered_by_the_model_it_was_assigned_to(serve: Callable[..., Live]) -> None:
    """A slow model is replaced and removed during its runs: their requests are answered, then it is unloaded."""
    live = serve(*EXPLICIT, "--load-model", "a", prepare=lambda m: m.publish("a", 1, onnx_models.slow()))
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[400, 1])
    request = pb.ModelInferRequest(model_name="a", inputs=[tensor], raw_input_contents=[np.ones(400, "f4").tobytes()])

    def begin() -> Any:  # noqa: ANN401 - grpc has no public type for it
        call = live.caller.stub.ModelInfer.future(request)
        wait_until(lambda: live.server.sample("medserve_inflight_requests") > 0, "the call to be accepted")
        assert not call.done()
        return call

    first = begin()
    live.models.publish("a", 1, onnx_models.slow(repeats=61))
    live.caller.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="a"))
    second = begin()
    live.caller.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="a"))
    assert live.caller.code("a") is NOT_FOUND
    for call in (first, second):
        assert (np.frombuffer(call.result().raw_output_contents[0], np.float32) == 1).all()
    wait_until(lambda: 'model="a"' not in live.server.metrics(), "its series to be removed")


def test_incomplete_file_is_loaded_once_complete(serve: Callable[..., Live]) -> None:
    """A file is overwritten in pieces: the previous model is served until the new one is complete."""
    live = serve(*POLL, prepare=lambda m: m.publish("a", 1, onnx_models.add(1)))
    whole = onnx_models.add(2, size=10_000).SerializeToString()
    with Load(live.server.target, "a", lambda: 1, lambda: 2) as load:
        with live.models.path("a", 1).open("r+b") as file:
            file.truncate(0)
            file.write(whole[:20_000])
            file.flush()
            live.caller.wait_for_reason("a", 1, "ONNX Runtime cannot load the model")
            assert "a/1 has changed; it is loaded if it is unchanged at the next poll" in live.log.read_text()
            assert live.caller.state("a", 1) == "READY"
            assert live.caller.number("a") == 1
            file.write(whole[20_000:])
        live.caller.wait_for_number("a", 2)
    assert load.wrong == []
    assert live.caller.index() == {("a", "1"): ("READY", "")}


def test_cancelled_calls_do_not_keep_a_model_loaded(serve: Callable[..., Live]) -> None:
    live = serve(*EXPLICIT, "--load-model", "a", prepare=lambda m: m.publish("a", 1, onnx_models.add(1)))
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 1])
    request = pb.ModelInferRequest(model_name="a", inputs=[tensor], raw_input_contents=[bytes(4)])
    # A separate connection: after so many cancelled calls, its next call may be refused (docs/transports.md).
    with grpc.insecure_channel(live.server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(20):
            calls = [stub.ModelInfer.future(request) for _ in range(50)]
            for call in calls:
                call.cancel()
    live.caller.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="a"))
    wait_until(lambda: 'model="a"' not in live.server.metrics(), "the model and its series to be removed")


def test_removed_version_is_unloaded(serve: Callable[..., Live]) -> None:
    def prepare(models: ModelFolder) -> None:
        for version in (1, 2):
            models.publish("a", version, onnx_models.add(version))

    live = serve(*POLL, prepare=prepare)
    catalog = ModelCatalogStub(live.channel)

    def listed() -> list[str]:
        return [model.version for model in catalog.ListModels(model_catalog_pb2.ListModelsRequest()).models]

    assert listed() == ["1", "2"]
    live.models.remove("a", 2)
    live.caller.wait_for_number("a", 1)
    assert live.caller.code("a", 2) is NOT_FOUND
    wait_until(lambda: 'version="2"' not in live.server.metrics(), "its series to be removed")
    assert listed() == ["1"]
    assert list(live.caller.stub.ModelMetadata(pb.ModelMetadataRequest(name="a")).versions) == ["1"]
    statistics = live.caller.stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
    assert [entry.version for entry in statistics] == ["1"]

    # A repository that cannot be read, e.g. because a disk failed, does not unload models.
    live.models.folder.rename(live.models.folder.with_name("away"))
    wait_until(lambda: "the served models are unchanged" in live.log.read_text(), "the loss to be detected")
    assert live.caller.number("a") == 1
    live.models.folder.with_name("away").rename(live.models.folder)
    live.models.publish("a", 3, onnx_models.add(3))
    live.caller.wait_for_number("a", 3)
    shutil.rmtree(live.models.folder / "a")
    wait_until(lambda: live.caller.code("a") is NOT_FOUND, "all models to be unloaded")
    assert live.caller.stub.ServerReady(pb.ServerReadyRequest()).ready


def test_version_policy_selects_the_served_versions(serve: Callable[..., Live]) -> None:
    def prepare(models: ModelFolder) -> None:
        for name in ("a", "b"):
            for version in (1, 2, 3):
                models.publish(name, version, onnx_models.add(version))

    live = serve(*POLL, "--version-policy", "latest:2 b=1", prepare=prepare)
    assert {*live.caller.index(ready=True)} == {("a", "2"), ("a", "3"), ("b", "1")}
    assert live.caller.index()["a", "1"] == ("UNAVAILABLE", "not loaded")
    live.models.publish("a", 4, b"no model")
    live.caller.wait_for_reason("a", 4, "cannot load")
    assert {*live.caller.index(ready=True)} == {("a", "2"), ("a", "3"), ("b", "1")}
    live.models.publish("a", 5, onnx_models.add(5))
    wait_until(lambda: live.caller.state("a", 2) == "UNAVAILABLE", "the oldest version to be unloaded")
    assert {*live.caller.index(ready=True)} == {("a", "3"), ("a", "5"), ("b", "1")}
    live.models.remove("a", 5)
    wait_until(lambda: live.caller.state("a", 2) == "READY", "the oldest version to be loaded again")


def control(live: Live, name: str, *, load: bool, **arguments: Any) -> grpc.StatusCode | str:  # noqa: ANN401
    """Loads or unloads a model; returns OK, or the status and message of the error."""
    try:
        if load:
            live.caller.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name, **arguments))
        else:
            live.caller.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=name, **arguments))
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return OK


def test_models_are_loaded_on_request(serve: Callable[..., Live]) -> None:
    names = [f"m{number}" for number in range(6)]

    def prepare(models: ModelFolder) -> None:
        for number, name in enumerate(names):
            models.publish(name, 1, onnx_models.add(number))

    live = serve(*EXPLICIT, "--load-model", "m0", "--load-model", "m1", prepare=prepare)
    assert {*live.caller.index(ready=True)} == {("m0", "1"), ("m1", "1")}
    assert live.caller.index()["m2", "1"] == ("UNAVAILABLE", "not loaded")
    assert live.caller.stub.ServerReady(pb.ServerReadyRequest()).ready
    assert live.caller.code("m2") is NOT_FOUND
    with Load(live.server.target, "m1", lambda: 1, lambda: 1) as load, ThreadPoolExecutor(12) as threads:
        outcomes = list(threads.map(lambda name: control(live, name, load=True), names * 4))
    assert set(outcomes) == {OK}
    assert load.wrong == []
    assert [live.caller.number(name) for name in names] == list(range(6))

    unload = {"unload_dependents": pb.ModelRepositoryParameter(bool_param=True)}
    assert control(live, "m2", load=False, parameters=unload) is OK
    assert live.caller.code("m2") is NOT_FOUND
    assert live.caller.index()["m2", "1"] == ("UNAVAILABLE", "not loaded")
    wait_until(lambda: 'model="m2"' not in live.server.metrics(), "its series to be removed")
    assert control(live, "m2", load=True) is OK
    assert live.caller.number("m2") == 2

    live.models.publish("m3", 1, b"no model")
    assert "FAILED_PRECONDITION: m3: version 1: ONNX Runtime cannot load the model" in str(
        control(live, "m3", load=True)
    )
    assert live.caller.number("m3") == 3, "the served model is unchanged"
    live.models.publish("new", 1, onnx_models.add(9))
    assert live.caller.index()["new", "1"] == ("UNAVAILABLE", "not loaded")
    assert control(live, "new", load=True) is OK
    assert live.caller.number("new") == 9


def test_invalid_load_requests_are_refused_with_the_reason(serve: Callable[..., Live]) -> None:
    live = serve(*EXPLICIT, prepare=lambda m: m.publish("a", 1, onnx_models.add(1)))
    assert live.caller.index(ready=True) == {}
    for name in ("nothing", "../models", "a/1", ""):
        assert f"NOT_FOUND: model_name: is {name!r}" in str(control(live, name, load=True))
        assert f"NOT_FOUND: model_name: is {name!r}" in str(control(live, name, load=False))
    for parameter in ("config", "file:1/model.onnx"):
        text = str(control(live, "a", load=True, parameters={parameter: pb.ModelRepositoryParameter(bytes_param=b"")}))
        assert text.startswith(
            f"INVALID_ARGUMENT: parameters[{parameter}]: is not a parameter that this server supports"
        )
    assert "INVALID_ARGUMENT: repository_name" in str(control(live, "a", load=True, repository_name="other"))
    (live.models.folder / "SHA256SUMS").write_text("damaged")
    assert "the model repository cannot be read" in str(control(live, "a", load=True))
    assert str(live.models.folder) not in str(control(live, "a", load=True))


def test_load_request_to_polling_server_names_the_required_flag(serve: Callable[..., Live]) -> None:
    live = serve(*POLL, prepare=lambda _: None)
    assert "UNIMPLEMENTED: models are loaded on request only with --model-control explicit" in str(
        control(live, "a", load=True)
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ("--model-control", "explicit", "--load-model", "nothing"),
            "--load-model nothing: --models models has no",
        ),
        (("--require-signed", "README.md"), "--require-signed README.md: "),
        (("--model-control", "poll", "--models", "nowhere"), "--models nowhere: the folder"),
    ],
)
def test_invalid_model_control_settings_prevent_startup(flags: tuple[str, ...], text: str) -> None:
    assert text in refusal("--transport", "grpcio", *flags)
