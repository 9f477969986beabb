"""Fixtures: the real server, with the models of the repository or with small ones made for the tests."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from samples import explained_models, onnx_models, pixel_models, segmentation_models
from servers.model_folder import Caller, Live, ModelFolder
from servers.server_process import REPOSITORY, TRANSPORTS, ServerProcess, running_server


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Both transports; every test that uses a server runs on each."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def server(transport: str) -> Iterator[ServerProcess]:
    """Serves models/."""
    with running_server("--transport", transport) as started:
        yield started


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a model in models/, another of them, a segmentation model, and models without a manifest."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        shutil.copytree(REPOSITORY / "models/chest-xray/1", folder / f"chest-xray/{version}")
    shutil.copytree(REPOSITORY / "models/breast-cancer-risk", folder / "breast-cancer-risk")
    segmenting = segmentation_models.manifest(segmentation_models.tiled(), [segmentation_models.bright()])
    onnx_models.save(folder, "spots", segmentation_models.spots(segmenting))
    for datatype in onnx_models.DATATYPES:
        onnx_models.save(folder, f"identity-{datatype.lower()}", onnx_models.identity(datatype, ["batch", 3]))
    onnx_models.save(folder, "sequence", onnx_models.identity("FP32", ["time", "channels"]))
    onnx_models.save(folder, "constant", onnx_models.constant())
    for datatype in ("FP32", "BYTES"):
        onnx_models.save(folder, f"any-rank-{datatype.lower()}", onnx_models.identity(datatype, None))
    onnx_models.save(folder, "two-inputs", onnx_models.two_inputs())
    onnx_models.save(folder, "lookup", onnx_models.lookup())
    onnx_models.save(folder, "slow", onnx_models.slow())
    return folder


@pytest.fixture(scope="session")
def zoo(repository: Path, transport: str) -> Iterator[ServerProcess]:
    """Serves the models made for the tests, with small limits."""
    with running_server(
        "--transport",
        transport,
        "--models",
        str(repository),
        "--max-message-mib",
        "4",
        "--max-request-rows",
        "1000",
        "--max-pending-requests",
        "8",
    ) as started:
        yield started


@pytest.fixture(scope="session")
def explaining(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[ServerProcess]:
    """Serves models with and without the outputs for explanations, with small limits."""
    folder = tmp_path_factory.mktemp("explained")
    onnx_models.save(folder, "lesions", explained_models.lesions())
    onnx_models.save(folder, "decay", explained_models.decay())
    onnx_models.save(folder, "plain-lesions", explained_models.lesions(explained_models.plain_lesions_manifest()))
    onnx_models.save(folder, "plain-decay", explained_models.decay(explained_models.plain_decay_manifest()))
    for name, image in pixel_models.INPUTS.items():
        onnx_models.save(folder, name, pixel_models.seeing(image))
    limits = ("--max-request-rows", "400", "--max-message-mib", "2")
    with running_server("--transport", transport, "--models", str(folder), *limits) as started:
        yield started


@pytest.fixture(scope="session")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as opened:
        yield opened


@pytest.fixture(scope="session")
def zoo_channel(zoo: ServerProcess) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(zoo.target, options) as opened:
        yield opened


@pytest.fixture
def serve(tmp_path: Path, transport: str) -> Iterator[Callable[..., Live]]:
    """Returns a function that starts a server with these flags, for a folder filled by `prepare`."""
    with ExitStack() as stack:

        def start(*flags: str, prepare: Callable[[ModelFolder], object]) -> Live:
            models = ModelFolder(tmp_path / "models")
            prepare(models)
            log = tmp_path / "log"
            server = stack.enter_context(
                running_server("--models", str(models.folder), "--transport", transport, *flags, log=log)
            )
            channel = stack.enter_context(grpc.insecure_channel(server.target))
            return Live(models, server, Caller(channel), channel, log)

        yield start
