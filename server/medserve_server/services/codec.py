"""Converts tensors of the Open Inference Protocol to and from NumPy arrays and validates them against the graph."""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_server.engine.datatypes import DATATYPES
from medserve_server.engine.session import Tensors, TensorSpec
from medserve_server.engine.work import DEFAULT_PRIORITY
from medserve_server.errors import FieldViolation, InvalidInput, Unsupported, listing

Tensor = pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor
MAX_TENSORS = 256
MAX_AXES = 64  # limit of NumPy arrays
MAX_EMPTY = 2**24
"""Maximum product of the nonzero axis sizes of an empty tensor. The message size does not bound it, and a model that
sums over an empty axis has an output of that size."""
CONTENTS_FIELDS = tuple(field.name for field in pb.InferTensorContents.DESCRIPTOR.fields)


@dataclass(slots=True)
class InferRequest:
    """A decoded and validated request."""

    inputs: Tensors
    outputs: tuple[str, ...] | None
    """Names of the requested outputs; None for all."""
    rows: int
    """Size of the first axis; 1 if the inputs have no common batch axis."""
    raw: bool
    """Whether the response uses raw_output_contents: as in Triton, always unless the request has typed contents."""
    priority: int
    timeout: float | None
    """Maximum time in seconds that the request may be queued; None for no limit."""


def decode(
    request: pb.ModelInferRequest,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    batched: bool,
    max_rows: int,
) -> InferRequest:
    """Decodes the tensors of a request for a graph with these inputs and outputs.

    Args:
        request: the request message.
        inputs: inputs of the graph.
        outputs: outputs of the graph.
        batched: whether the first axis of all tensors is a common batch axis.
        max_rows: maximum size of the batch axis.

    Raises:
        InvalidInput: names, counts, shapes, datatypes or contents do not match the graph; all violations are listed.
        Unsupported: the request uses an extension that this server does not support.
    """
    plain = _decode_plain(request, inputs, max_rows) if batched else None
    if plain is not None:
        return plain
    priority, timeout = scheduling(request)
    if (count := max(len(request.inputs), len(request.outputs))) > MAX_TENSORS:
        text = f"the request names {count} tensors, at most {MAX_TENSORS} are accepted"
        raise InvalidInput.of("", text, "tensors")
    # Lists, since protobuf creates a new Python object on each access to an element.
    tensors, payloads = list(request.inputs), list(request.raw_input_contents)
    wanted = [output.name for output in request.outputs]
    _refuse_extensions(request, [*tensors, *request.outputs])
    violations = [
        *_name_violations("inputs", [tensor.name for tensor in tensors], inputs),
        *_name_violations("outputs", wanted, outputs),
    ]
    raw = bool(payloads)
    if raw and len(payloads) != len(tensors):
        violations.append(
            FieldViolation("raw_input_contents", f"has {len(payloads)} entries for {len(tensors)} inputs")
        )
    if violations:
        raise InvalidInput(violations)

    specs = {spec.name: spec for spec in inputs}
    arrays: dict[str, NDArray[np.generic]] = {}
    for index, tensor in enumerate(tensors):
        name = tensor.name
        try:
            shape = _checked_shape(tensor, specs[name], batched=batched)
            arrays[name] = (
                _read_raw(tensor, shape, payloads[index], f"raw_input_contents[{index}]")
                if raw
                else _read_contents(tensor, shape)
            )
        except _WrongTensor as wrong:
            violations.append(FieldViolation(wrong.field or f"inputs[{name}].{wrong.part}", wrong.description))
    if violations:
        raise InvalidInput(violations)
    rows = _rows(arrays, max_rows) if batched else 1
    typed = any(tensor.HasField("contents") for tensor in tensors)
    return InferRequest(arrays, tuple(wanted) or None, rows, not typed, priority, timeout)


def _decode_plain(request: pb.ModelInferRequest, inputs: Sequence[TensorSpec], max_rows: int) -> InferRequest | None:
    """Fast path for the most common request: one raw numeric tensor, without parameters, requesting all outputs.

    Returns:
        None for any other request, and for an invalid one, for which `decode` reports the violations.
    """
    tensors, payloads = request.inputs, request.raw_input_contents
    if len(tensors) != 1 or len(payloads) != 1 or len(inputs) != 1 or request.outputs or request.parameters:
        return None
    tensor, spec = tensors[0], inputs[0]
    shape = tuple(tensor.shape)
    if (
        spec.row_bytes is None
        or tensor.name != spec.name
        or tensor.datatype != spec.datatype
        or len(shape) != len(spec.shape)
        or shape[1:] != spec.shape[1:]
        or not 0 < shape[0] <= max_rows
        or tensor.parameters
        or tensor.HasField("contents")
    ):
        return None
    payload = payloads[0]
    if len(payload) != shape[0] * spec.row_bytes:
        return None
    array = np.frombuffer(payload, DATATYPES[spec.datatype].dtype).reshape(shape)
    return InferRequest({spec.name: array}, None, shape[0], True, DEFAULT_PRIORITY, None)


def scheduling(request: pb.ModelInferRequest) -> tuple[int, float | None]:
    """Reads the parameters `priority` (0: the default) and `timeout` (microseconds; 0: none).

    Raises:
        InvalidInput: one of them is not a non-negative integer.
    """
    if not request.parameters:
        return DEFAULT_PRIORITY, None
    numbers = {}
    for name in ("priority", "timeout"):
        parameter = request.parameters[name] if name in request.parameters else pb.InferParameter(int64_param=0)
        kind = parameter.WhichOneof("parameter_choice")
        number = getattr(parameter, kind) if kind in {"int64_param", "uint64_param"} else -1
        if number < 0:
            raise InvalidInput.of(
                f"parameters[{name}]", "is not a whole number from 0; send int64_param or uint64_param"
            )
        numbers[name] = number
    return numbers["priority"] or DEFAULT_PRIORITY, numbers["timeout"] / 1e6 or None


def encode(outputs: Tensors, specs: Sequence[TensorSpec], response: pb.ModelInferResponse, *, raw: bool) -> None:
    """Writes output arrays into a response, raw if requested or if an output's datatype has no typed contents."""
    datatypes = {spec.name: spec.datatype for spec in specs}
    raw = raw or any(DATATYPES[datatypes[name]].contents is None for name in outputs)
    for name, array in outputs.items():
        datatype = datatypes[name]
        tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if datatype == "BYTES":
            elements = [str(text).encode() for text in array.ravel()]
            if raw:
                response.raw_output_contents.append(
                    b"".join(struct.pack("<I", len(element)) + element for element in elements)
                )
            else:
                tensor.contents.bytes_contents.extend(elements)
        elif raw:
            response.raw_output_contents.append(array.tobytes())
        elif contents := DATATYPES[datatype].contents:
            getattr(tensor.contents, contents).extend(array.ravel().tolist())


class _WrongTensor(Exception):
    """A violation in one tensor."""

    def __init__(self, part: str, description: str, field: str | None = None) -> None:
        self.part = part
        self.description = description
        self.field = field


def _refuse_extensions(request: pb.ModelInferRequest, tensors: Sequence[Tensor]) -> None:
    """Refuses extensions that would change the meaning of a request if they were ignored."""
    asked = [f"parameters[{name}]" for name in request.parameters if name.startswith("sequence_")]
    for tensor in tensors:
        if tensor.parameters:
            asked += [
                f"{tensor.name}.parameters[{name}]"
                for name in tensor.parameters
                if name.startswith("shared_memory_") or name == "classification"
            ]
    if asked:
        raise Unsupported(
            f"{asked[0]} requests an extension that this server does not support",
            [FieldViolation(field, "is not supported") for field in asked],
        )


def _name_violations(kind: str, given: list[str], specs: Sequence[TensorSpec]) -> list[FieldViolation]:
    """Returns violations in the names of the inputs, which must all be present, or outputs, which may be a subset."""
    known = [spec.name for spec in specs]
    if given == known or (kind == "outputs" and not given):
        return []
    violations = []
    for index, name in enumerate(given):
        if name not in known:
            text = f"is {name[:128]!r}; the model's {kind} are {listing(known)}"
            violations.append(FieldViolation(f"{kind}[{index}].name", text))
        elif name in given[:index]:
            violations.append(FieldViolation(f"{kind}[{index}].name", f"is {name!r}, which is already listed"))
    if kind == "inputs":
        violations += [
            FieldViolation(
                "inputs", f"does not contain {spec.name}, {spec.datatype} {list(spec.shape) or 'of any shape'}"
            )
            for spec in specs
            if spec.name not in given
        ]
    return violations


def _checked_shape(
    tensor: pb.ModelInferRequest.InferInputTensor, spec: TensorSpec, *, batched: bool
) -> tuple[int, ...]:
    """Returns the shape if it matches the graph and, for an empty tensor, cannot make the model exhaust memory."""
    if tensor.datatype != spec.datatype:
        raise _WrongTensor("datatype", f"is {tensor.datatype[:32]!r}, expected {spec.datatype}")
    shape = tuple(tensor.shape)
    if len(shape) > MAX_AXES:
        raise _WrongTensor("shape", f"has {len(shape)} axes, at most {MAX_AXES} are accepted")
    expected = spec.shape or (-1,) * len(shape)
    if len(shape) != len(expected) or any(
        size < 0 if free == -1 else size != free for size, free in zip(shape, expected, strict=True)
    ):
        text = f"expected {list(spec.shape)} with any size for -1" if spec.shape else "expected no negative size"
        raise _WrongTensor("shape", f"is {list(shape[:16])}, {text}")
    if batched and shape[0] == 0:
        raise _WrongTensor("shape", f"is {list(shape)}: the batch is empty; expected at least 1 row")
    if 0 in shape and math.prod(size or 1 for size in shape) > MAX_EMPTY:
        text = f"is {list(shape[:16])}: the other axes of an empty tensor may span at most {MAX_EMPTY} elements"
        raise _WrongTensor("shape", text)
    return shape


def _read_raw(
    tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...], payload: bytes, field: str
) -> NDArray[np.generic]:
    datatype = tensor.datatype
    dtype = DATATYPES[datatype].dtype
    count = math.prod(shape)
    if tensor.HasField("contents"):
        raise _WrongTensor("contents", "is set in addition to raw_input_contents; use only one of them")
    if datatype == "BYTES":
        return _as_strings(list(split(payload, count, field)), shape, field)
    size = count * dtype.itemsize
    if len(payload) != size:
        raise _WrongTensor("", f"has {len(payload)} bytes, expected {size} for {datatype} {list(shape)}", field)
    if datatype == "BOOL" and payload.strip(b"\x00\x01"):
        raise _WrongTensor("", "contains a byte that is neither 0 nor 1, expected BOOL", field)
    return np.frombuffer(payload, dtype).reshape(shape)


def _read_contents(tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]) -> NDArray[np.generic]:
    datatype = DATATYPES[tensor.datatype]
    count = math.prod(shape)
    if datatype.contents is None:
        raise _WrongTensor("contents", f"does not support {tensor.datatype}; send it in raw_input_contents")
    used = [field for field in CONTENTS_FIELDS if len(getattr(tensor.contents, field))]
    if used not in ([], [datatype.contents]):
        raise _WrongTensor("contents", f"uses {', '.join(used)}, expected {datatype.contents} for {tensor.datatype}")
    values = getattr(tensor.contents, datatype.contents)
    if len(values) != count:
        raise _WrongTensor(
            f"contents.{datatype.contents}", f"has {len(values)} elements, expected {count} for {list(shape)}"
        )
    if tensor.datatype == "BYTES":
        return _as_strings(list(values), shape, None)
    wide = np.array(values)  # typed contents store small integers in 32-bit fields
    array = wide.astype(datatype.dtype)
    if array.dtype.kind in "iu" and not np.array_equal(array, wide):
        raise _WrongTensor(f"contents.{datatype.contents}", f"contains a number out of range for {tensor.datatype}")
    return array.reshape(shape)


def split(payload: bytes, count: int, field: str) -> Iterator[bytes]:
    """Yields the elements of raw BYTES, each preceded by its length in 4 little-endian bytes."""
    position = 0
    for index in range(count):
        head = payload[position : position + 4]
        end = position + 4 + int.from_bytes(head, "little")
        if len(head) < 4 or end > len(payload):
            raise _WrongTensor("", f"ends inside element {index} of {count}", field)
        yield payload[position + 4 : end]
        position = end
    if position != len(payload):
        raise _WrongTensor("", f"has {len(payload) - position} extra bytes after its {count} elements", field)


def _as_strings(elements: list[bytes], shape: tuple[int, ...], field: str | None) -> NDArray[np.generic]:
    array = np.empty(len(elements), object)
    try:
        array[:] = [element.decode() for element in elements]
    except UnicodeDecodeError:
        raise _WrongTensor("contents.bytes_contents", "contains an element that is not UTF-8", field) from None
    return array.reshape(shape)


def _rows(arrays: Tensors, max_rows: int) -> int:
    """Returns the number of rows, which must be the same for all inputs."""
    sizes = {name: array.shape[0] for name, array in arrays.items()}
    rows = int(next(iter(sizes.values())))
    for name, size in sizes.items():
        if size != rows:
            raise InvalidInput.of(f"inputs[{name}].shape", f"has {size} rows, but another input has {rows}")
    if rows > max_rows:
        name = next(iter(sizes))
        raise InvalidInput.of(f"inputs[{name}].shape", f"has {rows} rows, at most {max_rows} are accepted", "rows")
    return rows
