"""Requests to segment images: streams, REST, errors, cancellation and metrics."""

import base64
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from calls.bad_request import code_of, violations
from calls.rest_client import RestClient
from calls.segmentation import Gray, file_of, segment, to_segment
from medserve_proto.inference import grpc_service_pb2 as inference_pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1 import model_catalog_pb2 as catalog_pb
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from servers.server_process import ServerProcess
from waiting import PATIENCE, wait_until

SQUARE = np.zeros((40, 50), np.uint8)
SQUARE[10:30, 20:30] = 255
LARGE = np.random.default_rng(0).integers(0, 100, (1300, 1300), dtype=np.uint8)
"""Dark noise of more than a million pixels, so that it is computed alone."""


def test_stream_answers_in_order_and_an_error_in_its_position(stub: ImageSegmentationStub) -> None:
    images: list[Gray | bytes] = [SQUARE, b"no image", SQUARE[:, :25], LARGE, SQUARE.T]

    def requests() -> Iterator[pb.SegmentRequest]:
        for number, image in enumerate(images):
            yield pb.SegmentRequest(model_name="spots", images=[to_segment(image)], request_id=str(number))

    answers = list(stub.SegmentStream(requests(), timeout=PATIENCE))
    assert [answer.request_id for answer in answers] == ["0", "1", "2", "3", "4"]
    assert answers.pop(1).error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    found = [answer.response.results[0] for answer in answers]
    assert [(result.height, result.width) for result in found] == [(40, 50), (40, 25), (1300, 1300), (50, 40)]
    assert [result.labels[0].area_px for result in found] == [200, 100, 0, 200]


def test_json_has_the_same_result(segmenting: ServerProcess, stub: ImageSegmentationStub) -> None:
    rest = RestClient(segmenting.http_url, {})
    image = {"encoded": base64.b64encode(file_of(SQUARE)).decode()}
    spacing = {"rowMm": 0.5, "columnMm": 0.25}
    body = {"images": [{"image": image, "pixelSpacing": spacing}], "masks": "MASK_FORMAT_PNG", "requestId": "7"}
    request = pb.SegmentRequest(
        model_name="spots",
        images=[to_segment(SQUARE, 0.5, 0.25)],
        masks=pb.MASK_FORMAT_PNG,
        request_id="7",
    )
    over_grpc = stub.Segment(request, timeout=PATIENCE)
    expected = MessageToDict(over_grpc, always_print_fields_with_no_presence=True)
    assert rest.post("/v1/models/spots:segment", body).json == expected
    assert rest.post("/v1/models/spots/versions/1:segment", body).json == expected


def test_image_file_as_body_takes_options_from_the_query(
    segmenting: ServerProcess, stub: ImageSegmentationStub
) -> None:
    rest = RestClient(segmenting.http_url, {})
    path = "/v1/models/spots:segment?masks=MASK_FORMAT_RUN_LENGTH&max_objects=5&contours=true"
    reply = rest.post(path, file_of(SQUARE), Content_Type="image/png")
    options = {"masks": pb.MASK_FORMAT_RUN_LENGTH, "max_objects": 5, "contours": True}
    (result,) = segment(stub, "spots", SQUARE, **options)
    assert reply.json["results"] == [MessageToDict(result, always_print_fields_with_no_presence=True)]
    refused = rest.post("/v1/models/spots:segment?masks=PNG", file_of(SQUARE), Content_Type="image/png")
    assert list(refused.violations) == ["masks"]


def test_large_response_is_written_as_json(segmenting: ServerProcess) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600), dtype=np.uint8)
    path = "/v1/models/spots:segment?probability_maps=true"
    reply = RestClient(segmenting.http_url, {}).post(path, file_of(noise), Content_Type="image/png")
    assert reply.status == 200
    assert len(reply.body) > 256 * 1024
    assert len(reply.json["results"][0]["labels"][0]["objects"]) == 10_000
    assert reply.json["results"][0]["labels"][0]["count"] > 10_000


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.SegmentRequest(model_name="spots"), "images"),
        (pb.SegmentRequest(model_name="spots", images=[pb.ImageToSegment()]), "images[0].image"),
        (pb.SegmentRequest(model_name="spots", images=[to_segment(b"no")]), "images[0].image.encoded"),
        (pb.SegmentRequest(model_name="spots", images=[to_segment(SQUARE)], masks=9), "masks"),  # type: ignore[arg-type]
        (pb.SegmentRequest(model_name="spots", images=[to_segment(SQUARE)], uncertainty_maps=True), "uncertainty_maps"),
    ],
)
def test_error_names_the_field(stub: ImageSegmentationStub, request_: pb.SegmentRequest, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Segment(request_, timeout=PATIENCE)
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(caught.value)) == [field]


def test_all_invalid_images_are_listed(stub: ImageSegmentationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "spots", b"a", SQUARE, b"bc")
    assert list(violations(caught.value)) == ["images[0].image.encoded", "images[2].image.encoded"]


def test_model_of_another_task_is_refused(stub: ImageSegmentationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "identity", SQUARE)
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION
    assert "model identity does not segment images" in str(caught.value.details())


def test_catalog_lists_the_task(segmenting: ServerProcess) -> None:
    with grpc.insecure_channel(segmenting.target) as channel:
        listed = ModelCatalogStub(channel).ListModels(catalog_pb.ListModelsRequest(), timeout=PATIENCE).models
    assert {model.name: model.task for model in listed}["head"] == catalog_pb.TASK_IMAGE_SEGMENTATION


def test_objects_and_tiles_are_counted(segmenting: ServerProcess, stub: ImageSegmentationStub) -> None:
    def counts() -> list[float]:
        series = ('medserve_segmented_tiles_total{model="spots"', 'medserve_segmented_objects_total{model="spots"')
        return [segmenting.sample(name) for name in series]

    segment(stub, "spots", SQUARE)
    before = counts()
    (result,) = segment(stub, "spots", np.tile(SQUARE, (3, 4)))
    assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [result.tiles, 12]


def test_cancelled_request_frees_its_place(segmenting: ServerProcess, stub: ImageSegmentationStub) -> None:
    """Large images are computed one after the other: one that is cancelled must not block the next."""
    request = pb.SegmentRequest(model_name="spots", images=[to_segment(LARGE)])
    calls = [stub.Segment.future(request, timeout=PATIENCE) for _ in range(6)]
    wait_until(lambda: any(call.done() for call in calls), "the first request to be answered")
    for call in calls:
        call.cancel()
    assert segment(stub, "spots", LARGE)[0].height == 1300
    wait_until(lambda: segmenting.total("medserve_inflight_requests") == 0, "no request to be left")


def test_request_that_misses_its_deadline_ends_in_time(segmenting: ServerProcess, stub: ImageSegmentationStub) -> None:
    request = pb.SegmentRequest(model_name="spots", images=[to_segment(LARGE)])
    with pytest.raises(grpc.RpcError) as caught:
        stub.Segment(request, timeout=0.05)
    assert code_of(caught) in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    wait_until(lambda: segmenting.total("medserve_inflight_requests") == 0, "no request to be left")


@pytest.mark.parametrize("shape", [[1, 72, 64, 1], [1, 60, 64, 1], [1, 0, 64, 1]])
def test_tensors_that_are_not_tiles_are_refused(segmenting: ServerProcess, shape: list[int]) -> None:
    """A run on a larger input than a tile would need unbounded memory."""
    tensor = inference_pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=shape)
    pixels = bytes(int(np.prod(shape)))
    request = inference_pb.ModelInferRequest(model_name="spots", inputs=[tensor], raw_input_contents=[pixels])
    with grpc.insecure_channel(segmenting.target) as channel, pytest.raises(grpc.RpcError) as caught:
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE)
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected multiples of 8 up to [64, 64]" in violations(caught.value)["inputs[image].shape"]
