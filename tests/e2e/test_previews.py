"""Previews of images, compared with the pixels that reached the graph, through gRPC, REST and both clients."""

import asyncio
import base64
import io
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calls.bad_request import code_of, violations
from calls.rest_client import RestClient
from medserve_client import AsyncClient, Client, ImageReasons, ImageResult
from medserve_proto.v1 import image_classification_pb2 as pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from samples.dicom_files import dicom
from samples.pixel_models import INPUTS
from servers.server_process import ServerProcess

Pixels = NDArray[np.uint8]
RANDOM = np.random.default_rng(7)
PHOTO = RANDOM.integers(0, 256, (40, 70, 3), dtype=np.uint8)
FRAMES = RANDOM.integers(0, 256, (3, 20, 20), dtype=np.uint8)
REASONS = ImageReasons(feature_maps=["pixels"])


@pytest.fixture(scope="module")
def stub(explaining: ServerProcess) -> Iterator[ImageClassificationStub]:
    with grpc.insecure_channel(explaining.target) as channel:
        yield ImageClassificationStub(channel)


@pytest.fixture(scope="module")
def client(explaining: ServerProcess) -> Iterator[Client]:
    with Client(explaining.target) as opened:
        yield opened


def saved(pixels: Pixels, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png), formats=("PNG",))


def received(result: ImageResult) -> Pixels:
    """The pixels that reached the graph, [height, width] or [height, width, 3]."""
    (maps,) = result.feature_maps
    return maps.values.astype(np.uint8).transpose(1, 2, 0).squeeze()


@pytest.mark.parametrize("model", INPUTS)
def test_a_preview_holds_the_pixels_that_the_model_received(client: Client, model: str) -> None:
    files = [saved(PHOTO, kind) for kind in ("PNG", "JPEG", "TIFF")]
    results = client.classify([*files, dicom(PHOTO)], model, reasons=REASONS, preview=True).results
    for result in results:
        preview = opened(result.preview_png)
        assert preview.mode == ("RGB" if model == "seeing-rgb" else "L")
        np.testing.assert_array_equal(np.asarray(preview), received(result))
        assert result.frames == 1
        assert "RESIZED" in [warning.kind.name for warning in result.warnings]
    without_reasons = client.classify(files, model, preview=True).results
    assert [one.preview_png for one in without_reasons] == [one.preview_png for one in results[:3]]
    assert [one.feature_maps for one in without_reasons] == [()] * 3


def test_a_raw_image_is_its_preview(client: Client) -> None:
    pixels = RANDOM.integers(0, 256, (14, 16), dtype=np.uint8)
    (result,) = client.classify(pixels, "seeing-gray", preview=True).results
    np.testing.assert_array_equal(np.asarray(opened(result.preview_png)), pixels)
    assert result.frames == 1


def test_there_is_no_preview_without_request(client: Client) -> None:
    (result,) = client.classify(dicom(FRAMES, frames=3), "seeing-gray").results
    assert result.preview_png == b""
    assert result.frames == 3


def test_each_frame_of_a_dicom_file_has_its_preview(client: Client) -> None:
    previews = set()
    for frame in range(3):
        file = dicom(FRAMES, frames=3)
        (result,) = client.classify(file, "seeing-gray", reasons=REASONS, frame=frame, preview=True).results
        np.testing.assert_array_equal(np.asarray(opened(result.preview_png)), received(result))
        assert result.frames == 3
        previews.add(result.preview_png)
    assert len(previews) == 3


def test_the_asyncio_client_and_a_stream_return_the_same_previews(
    explaining: ServerProcess, stub: ImageClassificationStub, client: Client
) -> None:
    async def ask() -> bytes:
        async with AsyncClient(explaining.target) as asked:
            return (await asked.classify(saved(PHOTO, "PNG"), "seeing-rgb", preview=True)).results[0].preview_png

    (expected,) = client.classify(saved(PHOTO, "PNG"), "seeing-rgb", preview=True).results
    assert asyncio.run(ask()) == expected.preview_png
    images = [pb.Image(encoded=saved(PHOTO, "PNG"))]
    requests = [pb.ClassifyRequest(model_name="seeing-rgb", images=images, preview=asked) for asked in (True, False)]
    previews = [one.response.results[0].preview_png for one in stub.ClassifyStream(iter(requests))]
    assert previews == [expected.preview_png, b""]


def test_rest_returns_the_same_preview(explaining: ServerProcess, client: Client) -> None:
    rest, path = RestClient(explaining.http_url, {}), "/v1/models/seeing-gray:classify"
    file = dicom(FRAMES, frames=3)
    (expected,) = client.classify(file, "seeing-gray", preview=True).results
    of_file = rest.post(f"{path}?preview=true", file, Content_Type="application/dicom")
    of_json = rest.post(path, {"images": [{"encoded": base64.b64encode(file).decode()}], "preview": True})
    for reply in (of_file, of_json):
        assert reply.status == 200
        (result,) = reply.json["results"]
        assert base64.b64decode(result["previewPng"]) == expected.preview_png
        assert result["frames"] == 3
    without = rest.post(f"{path}?preview=false", file, Content_Type="application/dicom").json["results"][0]
    assert (without["previewPng"], without["frames"]) == ("", 3)
    for value in ("1", "True", ""):
        refused = rest.post(f"{path}?preview={value}", file, Content_Type="application/dicom")
        assert (refused.status, refused.violations) == (400, {"preview": f"is {value!r}, expected true or false"})


def test_previews_larger_than_a_message_are_refused_before_decoding(stub: ImageClassificationStub) -> None:
    images = [pb.Image(encoded=b"not an image")] * 200
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(pb.ClassifyRequest(model_name="seeing-rgb", images=images, preview=True))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(caught.value) == {
        "preview": "needs 2.38 MiB for 200 images, at most 2 are allowed per request; send fewer images per request"
    }
