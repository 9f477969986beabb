import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from medserve_server.config import Settings
from medserve_server.engine.session import Session
from medserve_server.registry.integrity import read_model
from samples import onnx_models
from servers.server_process import REPOSITORY


def test_bound_inputs_and_outputs_keep_their_names_and_values(tmp_path: Path) -> None:
    """BF16 uses I/O binding, as GPUs do, for all tensors of its graph: here two inputs and two outputs of two types."""
    session = Session(
        read_model(
            onnx_models.save(tmp_path, "mixed", onnx_models.two_types()), max_bytes=2**24, listed=None, public_key=None
        ),
        "cpu",
        Settings(),
    )
    single = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    bits = np.array([[0x3F80, 0x4000], [0x4040, 0x4080], [0x40A0, 0x3F80]], np.uint16)  # 1 2, 3 4, 5 1
    for part in (slice(0, 3), slice(1, 3), slice(2, 3)):  # runs are independent
        outputs = session.run({"single": single[part], "half": bits[part]}, ["same", "difference"])
        assert list(outputs) == ["same", "difference"]
        np.testing.assert_array_equal(outputs["same"], bits[part])
        np.testing.assert_array_equal(outputs["difference"], np.array([[0, 0], [0, 0], [0, 5]])[part])


def loaded(path: Path, threads: int | None = None) -> Session:
    file = read_model(path, max_bytes=2**30, listed=None, public_key=None)
    return Session(file, "cpu", Settings(threads=threads))


def convolution(size: int, channels: int, external: Path | None = None) -> onnx.ModelProto:
    """A convolution over images of `size` by `size`, with 9 * `channels` weights."""
    weights = np.full((channels, 1, 3, 3), 0.1, np.float32)
    tensor = numpy_helper.from_array(weights, "weights")
    node = helper.make_node("Conv", ["x", "weights"], ["y"], pads=[1, 1, 1, 1])
    shapes: tuple[onnx_models.Shape, onnx_models.Shape] = (["batch", 1, size, size], ["batch", channels, size, size])
    inputs: dict[str, tuple[int, onnx_models.Shape]] = {
        "x": (TensorProto.FLOAT, shapes[0]),
        "weights": (TensorProto.FLOAT, list(weights.shape)),
    }
    model = onnx_models.make([node], inputs, {"y": (TensorProto.FLOAT, shapes[1])})
    del model.graph.input[1]
    model.graph.initializer.append(tensor)
    if external is not None:
        onnx.external_data_helper.convert_model_to_external_data(model, location=external.name, size_threshold=0)
    return model


THREADS = {"breast-cancer-risk": 1, "cell-nuclei": 2, "chest-xray": 1, "fetal-head": 2}


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medserve_server.config.available_cpus", lambda: 2)


@pytest.mark.usefixtures("two_processors")
def test_of_the_packaged_models_only_segmentation_uses_all_processors(tmp_path: Path) -> None:
    paths = (REPOSITORY / "models").glob("*/*/model.onnx")
    assert {path.parent.parent.name: loaded(path).threads for path in paths} == THREADS
    small = onnx_models.save(tmp_path, "small", convolution(28, 8))
    assert loaded(small, threads=2).threads == 2, "a setting decides"


@pytest.mark.usefixtures("two_processors")
def test_a_model_with_many_multiplications_uses_all_processors(tmp_path: Path) -> None:
    """With weights in the file or in external data, and with sizes that are unknown before a request."""
    assert loaded(onnx_models.save(tmp_path, "large", convolution(512, 400))).threads == 2
    path = tmp_path / "external/1/model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(convolution(512, 400, path.with_name("weights.bin")), path)
    assert path.stat().st_size < 1000
    (path.parent / "card.html").write_text("x" * 10_000)
    assert loaded(path).threads == 2
    free = onnx_models.identity("FP32", ["batch", "height", "width"])
    assert loaded(onnx_models.save(tmp_path, "free", free)).threads == 2


@pytest.mark.usefixtures("two_processors")
@pytest.mark.process
def test_the_number_of_threads_does_not_depend_on_machine_load() -> None:
    """No run is needed to determine it."""
    (path,) = (REPOSITORY / "models").glob("chest-xray/1/model.onnx")
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        assert {loaded(path).threads for _ in range(20)} == {1}
    finally:
        for process in spinning:
            process.kill()
            process.wait()
