"""Small ONNX models built on the fly."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

Shape = list[str | int | None] | None
"""A shape; None if the graph does not declare a rank, and None for an axis with neither a size nor a name."""


def save(folder: Path, name: str, model: onnx.ModelProto, version: int = 1) -> Path:
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return path


def make(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, Shape]], outputs: dict[str, tuple[int, Shape]]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if all(shape is not None for _, shape in (*inputs.values(), *outputs.values())):  # not required by ONNX Runtime
        onnx.checker.check_model(model, full_check=True)
    return model


def identity(datatype: str, shape: Shape) -> onnx.ModelProto:
    """y = x."""
    kind = DATATYPES[datatype]
    return make([helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})


def constant() -> onnx.ModelProto:
    """y = TABLE, without inputs; its axis has the name of a batch axis."""
    node = helper.make_node("Constant", [], ["y"], value_floats=TABLE)
    return make([node], {}, {"y": (TensorProto.FLOAT, ["batch"])})


def total(shape: Shape) -> onnx.ModelProto:
    """y = the sum of x, a scalar; columns = its sums over the first axis."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0),
        helper.make_node("Constant", [], ["first"], value_ints=[0]),
        helper.make_node("ReduceSum", ["x", "first"], ["columns"], keepdims=0),
    ]
    kind = TensorProto.FLOAT
    return make(nodes, {"x": (kind, shape)}, {"y": (kind, []), "columns": (kind, None)})


def with_default(default: float) -> onnx.ModelProto:
    """y = x + w, where w is an input with a default."""
    size: tuple[int, Shape] = (TensorProto.FLOAT, ["n"])
    model = make([helper.make_node("Add", ["x", "w"], ["y"])], {"x": size, "w": (TensorProto.FLOAT, [1])}, {"y": size})
    model.graph.initializer.append(numpy_helper.from_array(np.array([default], np.float32), "w"))
    return model


def add(number: float, size: int = 1) -> onnx.ModelProto:
    """y = x + number, in a file of about 4 * `size` bytes."""
    numbers = numpy_helper.from_array(np.full(size, number, np.float32), "numbers")
    nodes = [
        helper.make_node("ReduceMax", ["numbers"], ["number"], keepdims=0),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    rows: tuple[int, Shape] = (TensorProto.FLOAT, ["batch", 1])
    model = make(nodes[1:], {"x": rows, "number": (TensorProto.FLOAT, [])}, {"y": rows})
    del model.graph.input[1]
    model.graph.node.insert(0, nodes[0])
    model.graph.initializer.append(numbers)
    return model


def external(location: str) -> bytes:
    """y = x + number, with the number in another file."""
    model = add(0)
    (number,) = model.graph.initializer
    number.ClearField("raw_data")
    number.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "4"}.items():
        number.external_data.add(key=key, value=value)
    return bytes(model.SerializeToString())


def two_inputs() -> onnx.ModelProto:
    """sum = a + b and difference = a - b."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    rows: tuple[int, Shape] = (TensorProto.FLOAT, ["batch", 2])
    return make(nodes, {"a": rows, "b": rows}, {"sum": rows, "difference": rows})


def two_types() -> onnx.ModelProto:
    """difference = single - half and same = half, where half is BF16."""
    shape: Shape = ["batch", 2]
    return make(
        [
            helper.make_node("Cast", ["half"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["single", "wide"], ["difference"]),
            helper.make_node("Identity", ["half"], ["same"]),
        ],
        {"half": (TensorProto.BFLOAT16, shape), "single": (TensorProto.FLOAT, shape)},
        {"difference": (TensorProto.FLOAT, shape), "same": (TensorProto.BFLOAT16, shape)},
    )


def lookup() -> onnx.ModelProto:
    """y = table[x], with a table of 4: an index of 4 or more makes the run fail."""
    rows: Shape = ["batch"]
    table = helper.make_node("Constant", [], ["table"], value_floats=[10.0, 11.0, 12.0, 13.0])
    gather = helper.make_node("Gather", ["table", "x"], ["y"])
    return make([table, gather], {"x": (TensorProto.INT64, rows)}, {"y": (TensorProto.FLOAT, rows)})


TABLE = [10.0, 11.0, 12.0, 13.0]


def scaled(factor: int) -> onnx.ModelProto:
    """y = factor * x + TABLE[code]: a code outside of the table makes the run fail."""
    nodes = [
        helper.make_node("Constant", [], ["factor"], value_float=float(factor)),
        helper.make_node("Constant", [], ["table"], value_floats=TABLE),
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Gather", ["table", "code"], ["entry"]),
        helper.make_node("Add", ["product", "entry"], ["y"]),
    ]
    rows: tuple[int, Shape] = (TensorProto.FLOAT, ["batch", 3])
    return make(nodes, {"x": rows, "code": (TensorProto.INT64, ["batch", 1])}, {"y": rows})


def wide(columns: int = 3000) -> onnx.ModelProto:
    """y = x, repeated: a small request with a large response."""
    repeats = helper.make_node("Constant", [], ["repeats"], value_ints=[1, columns])
    tile = helper.make_node("Tile", ["x", "repeats"], ["y"])
    return make(
        [repeats, tile], {"x": (TensorProto.FLOAT, ["batch", 1])}, {"y": (TensorProto.FLOAT, ["batch", columns])}
    )


def slow(repeats: int = 60) -> onnx.ModelProto:
    """y = x after about `repeats` milliseconds of matrix products."""
    size = 400
    nodes = [
        helper.make_node("Constant", [], ["shape"], value_ints=[size, size]),
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["m0"]),
    ]
    for index in range(repeats):
        nodes.append(helper.make_node("MatMul", [f"m{index}", "m0"], [f"p{index}"]))
        nodes.append(helper.make_node("Tanh", [f"p{index}"], [f"m{index + 1}"]))
    nodes += [
        helper.make_node("ReduceMean", [f"m{repeats}"], ["end"], keepdims=0),
        helper.make_node("Sub", ["end", "end"], ["zero"]),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    rows: tuple[int, Shape] = (TensorProto.FLOAT, ["batch", 1])
    return make(nodes, {"x": rows}, {"y": rows})


def loop(rounds: int = 0) -> onnx.ModelProto:
    """y = x, after `rounds` + max(x) rounds of a loop."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Neg", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("Constant", [], ["least"], value_float=float(rounds)),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Cast", ["zero"], ["false"], to=TensorProto.BOOL),
        helper.make_node("Not", ["false"], ["true"]),
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Add", ["most", "least"], ["rounds_float"]),
        helper.make_node("Cast", ["rounds_float"], ["rounds"], to=TensorProto.INT64),
        helper.make_node("Loop", ["rounds", "true", "zero"], ["end"], body=body),
        helper.make_node("Add", ["x", "end"], ["y"]),
    ]
    rows: tuple[int, Shape] = (TensorProto.FLOAT, ["batch", 1])
    return make(nodes, {"x": rows}, {"y": rows})


def failing() -> onnx.ModelProto:
    """A model whose every run fails with an index out of bounds."""
    nodes = [
        helper.make_node("Constant", [], ["table"], value_floats=TABLE),
        helper.make_node("Constant", [], ["beyond"], value_ints=[len(TABLE)]),
        helper.make_node("Cast", ["x"], ["code"], to=TensorProto.INT64),
        helper.make_node("Max", ["code", "beyond"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["y"]),
    ]
    rows: tuple[int, Shape] = (TensorProto.FLOAT, ["batch", 1])
    return make(nodes, {"x": rows}, {"y": rows})
