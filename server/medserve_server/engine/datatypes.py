"""The tensor datatypes supported by both ONNX Runtime and the Open Inference Protocol."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype's ONNX Runtime name, NumPy dtype, and field for typed contents."""

    ort_type: str
    dtype: np.dtype[np.generic]
    contents: str | None
    """Field of InferTensorContents; None if the datatype is sent as raw contents only."""


# Keyed by the protocol's datatype names.
DATATYPES = {
    "BOOL": Datatype("tensor(bool)", np.dtype(np.bool_), "bool_contents"),
    "UINT8": Datatype("tensor(uint8)", np.dtype(np.uint8), "uint_contents"),
    "UINT16": Datatype("tensor(uint16)", np.dtype(np.uint16), "uint_contents"),
    "UINT32": Datatype("tensor(uint32)", np.dtype(np.uint32), "uint_contents"),
    "UINT64": Datatype("tensor(uint64)", np.dtype(np.uint64), "uint64_contents"),
    "INT8": Datatype("tensor(int8)", np.dtype(np.int8), "int_contents"),
    "INT16": Datatype("tensor(int16)", np.dtype(np.int16), "int_contents"),
    "INT32": Datatype("tensor(int32)", np.dtype(np.int32), "int_contents"),
    "INT64": Datatype("tensor(int64)", np.dtype(np.int64), "int64_contents"),
    "FP16": Datatype("tensor(float16)", np.dtype(np.float16), None),
    "BF16": Datatype("tensor(bfloat16)", np.dtype(np.uint16), None),  # bit pattern: NumPy has no bfloat16
    "FP32": Datatype("tensor(float)", np.dtype(np.float32), "fp32_contents"),
    "FP64": Datatype("tensor(double)", np.dtype(np.float64), "fp64_contents"),
    "BYTES": Datatype("tensor(string)", np.dtype(object), "bytes_contents"),  # str objects
}
ORT_TYPES = {datatype.ort_type: name for name, datatype in DATATYPES.items()}
