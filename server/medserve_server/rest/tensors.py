"""Converts tensors of the Open Inference Protocol between JSON or binary data and gRPC messages.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import math
import re
from array import array
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_server.engine.datatypes import DATATYPES
from medserve_server.errors import InvalidInput, ServingError
from medserve_server.services.codec import MAX_AXES, split

MAX_TENSORS = 256
MAX_CONTAINERS = 2**20
"""Maximum arrays and objects of a request: each takes about 60 bytes of memory, but only two bytes of JSON."""

_CODES = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
"""Type codes of `array`, which rejects unsuitable values: fractions, strings and out-of-range integers."""
_NOT_JSON = re.compile(rb"-?\b(?:NaN|Infinity)\b")
_INT64 = range(-(2**63), 2**63)

Document = dict[str, Any]


def read_request(body: bytes, json_bytes: int | None) -> tuple[pb.ModelInferRequest, Document]:
    """Parses an inference request.

    Args:
        body: body of the HTTP request.
        json_bytes: number of leading bytes that are JSON, followed by binary data; None if all of the body is JSON.

    Returns:
        The message, with all tensors in `raw_input_contents`, and the JSON document, whose `outputs` select the format
        of the response.

    Raises:
        InvalidInput: the request is invalid; the error names the field or tensor.
    """
    head = body if json_bytes is None else body[:json_bytes]
    blobs = b"" if json_bytes is None else memoryview(body)[json_bytes:]
    try:
        document = parse(head)
    except ServingError:
        if _NOT_JSON.search(head):  # Python's json module writes NaN and infinities
            _refuse_null(_NOT_JSON.sub(b"null", head), memoryview(blobs))
        raise
    booleans = b"true" in head or b"false" in head
    return _request(document, memoryview(blobs), booleans=booleans), document


def parse(text: bytes) -> Document:
    """Parses a JSON object; an empty text gives an empty object.

    Raises:
        InvalidInput: the text is not a JSON object, or has more than `MAX_CONTAINERS` arrays and objects.
    """
    if not text:
        return {}
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise InvalidInput.of("", f"the body has more than {MAX_CONTAINERS} arrays and objects; send flat data")
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput.of("", f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput.of("", f"the body is {_kind(document)}, expected a JSON object")
    return document


def read_parameters(document: Document, field: str = "") -> dict[str, pb.InferParameter]:
    """Parses `parameters`.

    Args:
        document: JSON object that contains them.
        field: path of that object in error messages.

    Raises:
        InvalidInput: a parameter is neither a string, nor a number, nor a boolean.
    """
    prefix = f"{field}." if field else ""
    parameters = _member(document, "parameters", dict, prefix) or {}
    if len(parameters) > MAX_TENSORS:
        raise InvalidInput.of(f"{prefix}parameters", f"has {len(parameters)} entries, expected at most {MAX_TENSORS}")
    found = {}
    for name, value in parameters.items():
        match value:
            case bool():
                found[name] = pb.InferParameter(bool_param=value)
            case int() if value in _INT64:
                found[name] = pb.InferParameter(int64_param=value)
            case int():
                found[name] = pb.InferParameter(uint64_param=value)
            case float():
                found[name] = pb.InferParameter(double_param=value)
            case str():
                found[name] = pb.InferParameter(string_param=value)
            case _:
                text = f"is {_kind(value)}, expected a string, a number or a boolean"
                raise InvalidInput.of(f"{prefix}parameters[{name[:128]}]", text)
    return found


def write_response(response: pb.ModelInferResponse, document: Document) -> tuple[list[bytes], int | None]:
    """Serializes the response of an inference request.

    Args:
        response: response with all tensors in `raw_output_contents`.
        document: JSON document of the request.

    Returns:
        The parts of the body, and the length of the first part, the JSON, if binary data follows, else None.

    Raises:
        InvalidInput: an output cannot be represented in JSON.
    """
    wanted = {output["name"]: output.get("parameters") or {} for output in document.get("outputs") or ()}
    by_default = (document.get("parameters") or {}).get("binary_data_output", False)
    outputs: list[Document] = []
    blobs: list[bytes] = []
    for tensor, payload in zip(response.outputs, response.raw_output_contents, strict=True):
        shape = list(tensor.shape)
        output: Document = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
        if wanted.get(tensor.name, {}).get("binary_data", by_default):
            output["parameters"] = {"binary_data_size": len(payload)}
            blobs.append(payload)
        else:
            output["data"] = _json_data(tensor, payload)
        outputs.append(output)
    answer: Document = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        answer["id"] = response.id
    answer["outputs"] = outputs
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return [head, *blobs], len(head) if blobs else None


def _request(document: Document, blobs: memoryview, *, booleans: bool) -> pb.ModelInferRequest:
    parameters = read_parameters(document)
    default = parameters.pop("binary_data_output", None)
    if default is not None and not default.HasField("bool_param"):
        raise InvalidInput.of("parameters[binary_data_output]", "is not a boolean")
    request = pb.ModelInferRequest(id=_member(document, "id", str, "") or "", parameters=parameters)
    at = 0
    for index, tensor in enumerate(_tensors(document, "inputs")):
        name = _name(tensor, f"inputs[{index}]")
        field = f"inputs[{name[:128]}]"
        own = read_parameters(tensor, field)
        datatype = _member(tensor, "datatype", str, f"{field}.") or ""
        shape = _shape(tensor, field)
        size = own.pop("binary_data_size", None)
        if size is None:
            payload = _payload(tensor, datatype, shape, field, booleans=booleans)
        else:
            payload = _blob(tensor, size, blobs, at, field)
            at += len(payload)
        request.inputs.add(name=name, datatype=datatype, shape=shape, parameters=own)
        request.raw_input_contents.append(payload)
    if at != len(blobs):
        raise InvalidInput.of("", f"{len(blobs) - at} bytes follow the JSON and the binary data of the inputs")
    for index, tensor in enumerate(_tensors(document, "outputs")):
        field = f"outputs[{index}]"
        own = read_parameters(tensor, field)
        binary = own.pop("binary_data", None)
        if binary is not None and not binary.HasField("bool_param"):
            raise InvalidInput.of(f"{field}.parameters[binary_data]", "is not a boolean")
        request.outputs.add(name=_name(tensor, field), parameters=own)
    return request


def _refuse_null(head: bytes, blobs: memoryview) -> None:
    """Raises InvalidInput for the tensor that contains null, which has replaced NaN and infinities in `head`."""
    try:
        _request(parse(head), blobs, booleans=True)
    except InvalidInput as error:
        text = "contains NaN or an infinity, which JSON cannot represent; send it as binary data"
        field = error.violations[0].field
        raise (InvalidInput.of(field, text) if field.endswith(".data") else error) from None


def _tensors(document: Document, name: str) -> list[Document]:
    tensors = _member(document, name, list, "") or []
    if len(tensors) > MAX_TENSORS:
        text = f"the request names {len(tensors)} tensors, at most {MAX_TENSORS} are accepted"
        raise InvalidInput.of("", text, "tensors")
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, dict):
            raise InvalidInput.of(f"{name}[{index}]", f"is {_kind(tensor)}, expected a JSON object")
    return tensors


def _member(document: Document, name: str, kind: type, prefix: str) -> Any:  # noqa: ANN401 - of type `kind`
    value = document.get(name)
    if value is not None and not isinstance(value, kind):
        raise InvalidInput.of(f"{prefix}{name}", f"is {_kind(value)}, expected {_KINDS[kind]}")
    return value


def _name(tensor: Document, field: str) -> str:
    name: str | None = _member(tensor, "name", str, f"{field}.")
    if name is None:
        raise InvalidInput.of(f"{field}.name", "is missing")
    return name


def _shape(tensor: Document, field: str) -> list[int]:
    shape: list[Any] | None = _member(tensor, "shape", list, f"{field}.")
    if shape is None:
        raise InvalidInput.of(f"{field}.shape", "is missing")
    if len(shape) > MAX_AXES:
        raise InvalidInput.of(f"{field}.shape", f"has {len(shape)} axes, at most {MAX_AXES} are accepted")
    for size in shape:
        if type(size) is not int or not 0 <= size < 2**63:
            raise InvalidInput.of(f"{field}.shape", "contains a size that is not a non-negative integer")
    return shape


def _blob(tensor: Document, size: pb.InferParameter, blobs: memoryview, at: int, field: str) -> bytes:
    parameter = f"{field}.parameters[binary_data_size]"
    if "data" in tensor:
        raise InvalidInput.of(f"{field}.data", "is set together with binary_data_size; use only one of them")
    if not size.HasField("int64_param") or size.int64_param < 0:
        raise InvalidInput.of(parameter, "is not a non-negative integer")
    if size.int64_param > len(blobs) - at:
        raise InvalidInput.of(parameter, f"is {size.int64_param}, but {len(blobs) - at} bytes are left in the body")
    return bytes(blobs[at : at + size.int64_param])


def _payload(tensor: Document, datatype: str, shape: list[int], field: str, *, booleans: bool) -> bytes:
    """Returns the JSON data of a tensor, flat or nested according to its shape, as raw contents."""
    if datatype not in DATATYPES:
        raise InvalidInput.of(f"{field}.datatype", f"is {datatype[:32]!r}, expected one of {', '.join(DATATYPES)}")
    if datatype in {"FP16", "BF16"}:
        raise InvalidInput.of(f"{field}.data", f"cannot represent {datatype} in JSON; send it as binary data")
    data = _member(tensor, "data", list, f"{field}.")
    if data is None:
        raise InvalidInput.of(f"{field}.data", "is missing")
    if data and type(data[0]) is list:
        data = _flat(data, shape, field)
    if len(data) != math.prod(shape):
        raise InvalidInput.of(f"{field}.data", f"has {len(data)} elements, expected {math.prod(shape)} for {shape}")
    return _strings(data, field) if datatype == "BYTES" else _packed(data, datatype, field, booleans=booleans)


def _packed(data: list[Any], datatype: str, field: str, *, booleans: bool) -> bytes:
    # In Python, a boolean is an integer. Checking the type of each element takes as long as parsing it.
    if datatype == "BOOL":
        if not set(map(type, data)) <= {bool}:
            raise _wrong_data(data, datatype, field)
    elif booleans and bool in set(map(type, data)):
        raise _wrong_data(data, datatype, field)
    try:
        if datatype in {"BOOL", "UINT8"}:
            return bytes(data)  # twice as fast as an array
        numbers = array(_CODES[datatype], data)
    except (TypeError, ValueError, OverflowError):
        raise _wrong_data(data, datatype, field) from None
    if datatype == "FP32" and not np.isfinite(np.frombuffer(numbers, np.float32)).all():
        raise InvalidInput.of(f"{field}.data", "contains a number that is out of range for FP32")
    return numbers.tobytes()


def _flat(data: list[Any], shape: list[int], field: str) -> list[Any]:
    """Flattens nested lists in row-major order; the length of each list has to match the shape."""
    for axis, size in enumerate(shape):
        if axis:
            if set(map(type, data)) != {list}:
                break
            lengths = set(map(len, data))
            if lengths != {size}:
                text = f"is ragged, or not of shape {shape}: axis {axis} has {sorted(lengths)[:4]} elements"
                raise InvalidInput.of(f"{field}.data", text)
            data = list(chain.from_iterable(data))
        elif len(data) != size:
            raise InvalidInput.of(f"{field}.data", f"has {len(data)} rows, expected {size} for {shape}")
    return data


def _strings(data: list[Any], field: str) -> bytes:
    parts = []
    for element in data:
        if not isinstance(element, str):
            raise InvalidInput.of(f"{field}.data", f"contains {_kind(element)}, expected strings for BYTES")
        encoded = element.encode()
        parts += [len(encoded).to_bytes(4, "little"), encoded]
    return b"".join(parts)


def _wrong_data(data: list[Any], datatype: str, field: str) -> InvalidInput:
    """Returns the error for the first element that does not match the datatype."""
    fitting = {bool} if datatype == "BOOL" else {int, float} if datatype.startswith("FP") else {int}
    for index, element in enumerate(data):
        if type(element) not in fitting:
            expected = "numbers" if float in fitting else "integers" if int in fitting else "booleans"
            said = f"{element!r}"[:32] if isinstance(element, float) else _kind(element)
            return InvalidInput.of(
                f"{field}.data", f"contains {said} at index {index}, expected {expected} for {datatype}"
            )
    return InvalidInput.of(f"{field}.data", f"contains a number that is out of range for {datatype}")


def _json_data(tensor: pb.ModelInferResponse.InferOutputTensor, payload: bytes) -> NDArray[np.generic] | list[str]:
    name, datatype = tensor.name, tensor.datatype
    binary = 'request it as binary data, with "binary_data": true in its parameters'
    if datatype in {"FP16", "BF16"}:
        raise InvalidInput.of(f"outputs[{name}]", f"JSON cannot represent {datatype}; {binary}")
    if datatype == "BYTES":
        return [element.decode() for element in split(payload, math.prod(tensor.shape), f"outputs[{name}]")]
    data = np.frombuffer(payload, DATATYPES[datatype].dtype)
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InvalidInput.of(f"outputs[{name}]", f"contains NaN or an infinity, which JSON cannot represent; {binary}")
    return data


_KINDS: dict[type, str] = {
    dict: "a JSON object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def _kind(value: object) -> str:
    """Returns the name of the JSON type of a value."""
    return _KINDS[type(value)]
