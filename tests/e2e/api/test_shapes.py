"""A model accepts exactly the shapes that ONNX Runtime accepts, regardless of what its graph declares."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from calls.bad_request import code_of, violations
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_server.engine.datatypes import DATATYPES
from samples import onnx_models
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE

DECLARED: dict[str, onnx_models.Shape] = {
    "unknown": None,
    "scalar": [],
    "fixed": [3],
    "fixed-empty": [0, 3],
    "fixed-both": [2, 3],
    "free": ["time"],
    "free-first": ["time", 3],
    "free-last": [2, "time"],
    "free-both": ["time", "channels"],
    "unnamed": [None, 3],
    "unnamed-both": [None, None],
    "negative": [-1, 3],
    "rows": ["batch", 3],
    "rows-free": ["batch", "channels"],
    "only-rows": ["N"],
}
JOINED = {"rows", "rows-free", "only-rows"}
GIVEN: list[tuple[int, ...]] = [
    *((), (1,), (3,), (0,), (1, 3), (2, 3), (3, 2), (0, 3), (2, 0), (3, 0), (0, 0), (2, 3, 1), (0, 2, 3)),
    *((1, 0, 2), (1,) * 8, (1,) * 64),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("shapes")
    for name, shape in DECLARED.items():
        onnx_models.save(models, name, onnx_models.identity("FP32", shape))
    for datatype in DATATYPES:
        for name in ("unknown", "free-both"):
            onnx_models.save(models, f"{name}-{datatype}", onnx_models.identity(datatype, DECLARED[name]))
    onnx_models.save(models, "constant", onnx_models.constant())
    onnx_models.save(models, "default", onnx_models.with_default(5))
    onnx_models.save(models, "total", onnx_models.total(["time", "channels"]))
    onnx_models.save(models, "total-unknown", onnx_models.total(None))
    return models


@pytest.fixture(scope="module")
def shaped(folder: Path, transport: str) -> Iterator[ServerProcess]:
    log = folder.parent / "shapes.log"
    with running_server("--transport", transport, "--models", str(folder), "--threads", "1", log=log) as server:
        yield server
    assert "bug" not in log.read_text()


@pytest.fixture(scope="module")
def stub(shaped: ServerProcess) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(shaped.target) as channel:
        yield GRPCInferenceServiceStub(channel)


def reference(folder: Path, model: str, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | None:
    """Returns ONNX Runtime's outputs, or None if it refuses the shapes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(folder / model / "1/model.onnx", options)
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, inputs), strict=True))
    except ort.capi.onnxruntime_pybind11_state.InvalidArgument:
        return None


def request(model: str, datatype: str, array: NDArray[Any], *, raw: bool) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=array.shape)
    made = pb.ModelInferRequest(model_name=model, inputs=[tensor])
    if raw:
        made.raw_input_contents.append(to_bytes(array))
    else:
        values = [text.encode() for text in array.ravel()] if datatype == "BYTES" else array.ravel().tolist()
        made.inputs[0].contents.SetInParent()
        getattr(made.inputs[0].contents, str(DATATYPES[datatype].contents)).extend(values)
    return made


def to_bytes(array: NDArray[Any]) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in array.ravel())


def arrays(response: pb.ModelInferResponse) -> dict[str, NDArray[Any]]:
    """Returns the outputs, which must be either all raw or all typed."""
    found: dict[str, NDArray[Any]] = {}
    assert len(response.raw_output_contents) in {0, len(response.outputs)}
    for index, output in enumerate(response.outputs):
        datatype = DATATYPES[output.datatype]
        if output.datatype == "BYTES":
            if response.raw_output_contents:
                elements, rest = [], response.raw_output_contents[index]
                while rest:
                    end = 4 + int.from_bytes(rest[:4], "little")
                    elements.append(rest[4:end])
                    rest = rest[end:]
            else:
                elements = list(output.contents.bytes_contents)
            values = np.array([element.decode() for element in elements], object)
        elif response.raw_output_contents:
            values = np.frombuffer(response.raw_output_contents[index], datatype.dtype)
        else:
            values = np.array(getattr(output.contents, str(datatype.contents)), datatype.dtype)
        found[output.name] = values.reshape(tuple(output.shape))
    return found


def sample(datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    if datatype == "BYTES":
        return np.array([f"\u00e4{number}" for number in numbers.ravel()], object).reshape(shape)
    return (numbers % 2 if datatype == "BOOL" else numbers).astype(DATATYPES[datatype].dtype)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("declared", DECLARED)
def test_shapes_are_accepted_exactly_if_onnx_runtime_accepts_them(
    stub: GRPCInferenceServiceStub, folder: Path, declared: str, raw: bool
) -> None:
    for given in GIVEN:
        array = sample("FP32", given)
        expected = reference(folder, declared, {"x": array})
        if declared in JOINED and given[:1] == (0,):
            expected = None  # like Triton, medserve refuses a batch without rows
        if expected is None:
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(request(declared, "FP32", array, raw=raw), timeout=PATIENCE)
            assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT, given
            assert list(violations(caught.value)) == ["inputs[x].shape"], given
        else:
            found = stub.ModelInfer(request(declared, "FP32", array, raw=raw), timeout=PATIENCE)
            assert bool(found.raw_output_contents) == raw, given
            np.testing.assert_array_equal(arrays(found)["y"], expected["y"], strict=True)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("declared", ["unknown", "free-both"])
def test_scalars_and_empty_tensors_of_every_datatype(
    stub: GRPCInferenceServiceStub, declared: str, datatype: str
) -> None:
    for given in [(), (1,), (0,), (0, 3), (2, 0), (2, 3), (0, 0, 0)]:
        if declared == "free-both" and len(given) != 2:
            continue
        array = sample(datatype, given)
        for raw in {True, DATATYPES[datatype].contents is None}:
            found = stub.ModelInfer(request(f"{declared}-{datatype}", datatype, array, raw=raw), timeout=PATIENCE)
            np.testing.assert_array_equal(arrays(found)["y"], array, strict=True)


@pytest.mark.parametrize("given", [(2, 3), (0, 3), (2, 0), (0, 0)])
@pytest.mark.parametrize("model", ["total", "total-unknown"])
def test_sums_over_empty_axes_equal_those_of_onnx_runtime(
    stub: GRPCInferenceServiceStub, folder: Path, model: str, given: tuple[int, ...]
) -> None:
    array = sample("FP32", given)
    expected = reference(folder, model, {"x": array})
    assert expected is not None
    found = arrays(stub.ModelInfer(request(model, "FP32", array, raw=True), timeout=PATIENCE))
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)
    assert found["y"].shape == ()


@pytest.mark.parametrize("shape", [[0, 2**62], [2**40, 0, 2**40], [0, 2**25], [0, 4097, 4097], [0, -1], [-1], [1] * 65])
@pytest.mark.parametrize("model", ["unknown", "total-unknown", "free-both", "unknown-BYTES", "unknown-BF16"])
def test_unbounded_shape_without_data_is_refused(stub: GRPCInferenceServiceStub, model: str, shape: list[int]) -> None:
    """A model may sum over an empty axis, whose output would exhaust memory."""
    datatype = model.partition("-")[2] if model.partition("-")[2] in DATATYPES else "FP32"
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(
            pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[b""]), timeout=PATIENCE
        )
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(caught.value)) == ["inputs[x].shape"]


def test_model_without_inputs_returns_raw_contents(stub: GRPCInferenceServiceStub, folder: Path) -> None:
    expected = reference(folder, "constant", {})
    assert expected is not None
    found = stub.ModelInfer(pb.ModelInferRequest(model_name="constant"), timeout=PATIENCE)
    assert found.raw_output_contents
    np.testing.assert_array_equal(arrays(found)["y"], expected["y"], strict=True)
    assert stub.ModelConfig(pb.ModelConfigRequest(name="constant")).config.max_batch_size == 0
    streamed = stub.ModelStreamInfer(iter([pb.ModelInferRequest(model_name="constant")] * 3), timeout=PATIENCE)
    for response in streamed:
        np.testing.assert_array_equal(arrays(response.infer_response)["y"], expected["y"], strict=True)


def test_input_with_a_default_is_optional(stub: GRPCInferenceServiceStub, folder: Path) -> None:
    array = sample("FP32", (3,))
    expected = reference(folder, "default", {"x": array})
    assert expected is not None
    found = arrays(stub.ModelInfer(request("default", "FP32", array, raw=True), timeout=PATIENCE))
    np.testing.assert_array_equal(found["y"], expected["y"], strict=True)
    np.testing.assert_array_equal(found["y"], array + 5, strict=True)
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="default"), timeout=PATIENCE)
    assert [tensor.name for tensor in metadata.inputs] == ["x"], "as in Triton, it cannot be sent"
