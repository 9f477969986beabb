"""Tensors of any datatype, shape and values give the same response as JSON and over gRPC."""

from typing import Any

import grpc
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from calls.rest_client import RestClient, tensor
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_server.engine.datatypes import DATATYPES
from medserve_server.services.codec import split
from waiting import PATIENCE

IN_JSON = [name for name in DATATYPES if name not in {"FP16", "BF16"}]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any]]:
    datatype = draw(st.sampled_from(IN_JSON))
    shape = (draw(st.integers(1, 5)), 3)
    if datatype == "BYTES":
        elements = draw(st.lists(TEXT, min_size=shape[0] * 3, max_size=shape[0] * 3))
        return datatype, np.array(elements, object).reshape(shape)
    dtype = DATATYPES[datatype].dtype
    options = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    return datatype, draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **options)))  # type: ignore[arg-type]


def raw(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    encoded = [text.encode() for text in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


@given(tensors(), st.booleans())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_json_and_grpc_give_equal_responses(
    rest: RestClient, rest_channel: grpc.Channel, drawn: tuple[str, np.ndarray[Any, Any]], nested: bool
) -> None:
    datatype, array = drawn
    model = f"identity-{datatype.lower()}"
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[raw(array)])
    request.inputs.add(name="x", datatype=datatype, shape=array.shape)
    over_grpc = GRPCInferenceServiceStub(rest_channel).ModelInfer(request, timeout=PATIENCE)
    data = array.tolist() if nested else array.ravel().tolist()
    (output,) = rest.infer(model, tensor(datatype, list(array.shape), data)).json["outputs"]
    assert (output["datatype"], output["shape"]) == (over_grpc.outputs[0].datatype, list(over_grpc.outputs[0].shape))
    (payload,) = over_grpc.raw_output_contents
    if datatype == "BYTES":
        assert output["data"] == [text.decode() for text in split(payload, array.size, "y")]
    else:
        assert np.array(output["data"], array.dtype).tobytes() == payload
