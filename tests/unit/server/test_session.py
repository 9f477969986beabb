from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

import onnx_models
from medserve_server.config import Settings
from medserve_server.integrity import read_model
from medserve_server.session import Session


def test_inputs_and_outputs_that_are_bound_keep_their_names_and_values(tmp_path: Path) -> None:
    """BF16 takes the way of the GPUs, with all tensors of its graph: here two inputs and two outputs of two types."""
    shape: onnx_models.Shape = ["batch", 2]
    model = onnx_models.make(
        [
            helper.make_node("Cast", ["half"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["single", "wide"], ["difference"]),
            helper.make_node("Identity", ["half"], ["same"]),
        ],
        {"half": (TensorProto.BFLOAT16, shape), "single": (TensorProto.FLOAT, shape)},
        {"difference": (TensorProto.FLOAT, shape), "same": (TensorProto.BFLOAT16, shape)},
    )
    session = Session(
        read_model(onnx_models.save(tmp_path, "mixed", model), max_bytes=2**24, listed=None, public_key=None),
        "cpu",
        Settings(),
    )
    single = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    bits = np.array([[0x3F80, 0x4000], [0x4040, 0x4080], [0x40A0, 0x3F80]], np.uint16)  # 1 2, 3 4, 5 1
    for part in (slice(0, 3), slice(1, 3), slice(2, 3)):  # nothing of one run is left for the next
        outputs = session.run({"single": single[part], "half": bits[part]}, ["same", "difference"])
        assert list(outputs) == ["same", "difference"]
        np.testing.assert_array_equal(outputs["same"], bits[part])
        np.testing.assert_array_equal(outputs["difference"], np.array([[0, 0], [0, 0], [0, 5]])[part])
