from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_server.engine.datatypes import DATATYPES
from medserve_server.engine.session import TensorSpec
from medserve_server.errors import InvalidInput, Unsupported
from medserve_server.services.codec import decode, encode

NUMERIC = sorted(set(DATATYPES) - {"BYTES"})


def spec(name: str, datatype: str, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name, datatype, (-1, *shape[1:]), "batch")


def as_request(response: pb.ModelInferResponse) -> pb.ModelInferRequest:
    """Returns a response's tensors as the inputs of a request, since the wire format is the same."""
    request = pb.ModelInferRequest(raw_input_contents=response.raw_output_contents)
    for output in response.outputs:
        request.inputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if output.HasField("contents"):
            request.inputs[-1].contents.CopyFrom(output.contents)
    return request


@settings(deadline=None)
@given(data=st.data(), datatype=st.sampled_from(NUMERIC), raw=st.booleans())
def test_encoding_and_decoding_is_lossless(data: st.DataObject, datatype: str, raw: bool) -> None:
    array: Any = data.draw(hnp.arrays(DATATYPES[datatype].dtype, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)))
    tensor = spec("x", datatype, array.shape)
    response = pb.ModelInferResponse()
    encode({"x": array}, [tensor], response, raw=raw)
    decoded = decode(as_request(response), [tensor], [], batched=True, max_rows=100)
    assert decoded.inputs["x"].dtype == array.dtype
    np.testing.assert_array_equal(decoded.inputs["x"], array)
    assert decoded.rows == len(array)


@settings(deadline=None)
@given(strings=st.lists(st.text(), min_size=1, max_size=6), raw=st.booleans())
def test_strings_survive_encoding_and_decoding(strings: list[str], raw: bool) -> None:
    array = np.array(strings, object)
    tensor = spec("x", "BYTES", array.shape)
    response = pb.ModelInferResponse()
    encode({"x": array}, [tensor], response, raw=raw)
    decoded = decode(as_request(response), [tensor], [], batched=True, max_rows=100)
    assert decoded.inputs["x"].tolist() == strings


tensors = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["x", "y", ""]),
    datatype=st.sampled_from([*DATATYPES, "FP8", ""]),
    shape=st.lists(st.integers(-1, 3) | st.sampled_from([2**62, -(2**63)]), max_size=3),
    contents=st.none() | st.builds(pb.InferTensorContents, fp32_contents=st.lists(st.floats(width=32), max_size=9)),
)
requests = st.builds(
    pb.ModelInferRequest,
    inputs=st.lists(tensors, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=40), max_size=3),
)


@settings(max_examples=500, deadline=None)
@given(request=requests, datatype=st.sampled_from(sorted(DATATYPES)), shape=st.sampled_from([(-1,), (-1, 3), (-1, -1)]))
def test_any_request_is_only_ever_read_or_rejected(
    request: pb.ModelInferRequest, datatype: str, shape: tuple[int, ...]
) -> None:
    tensor = TensorSpec("x", datatype, shape, "batch")
    try:
        decoded = decode(request, [tensor], [], batched=True, max_rows=100)
    except (InvalidInput, Unsupported):
        return
    array = decoded.inputs["x"]
    assert array.shape == tuple(request.inputs[0].shape)
    assert array.dtype == DATATYPES[datatype].dtype
