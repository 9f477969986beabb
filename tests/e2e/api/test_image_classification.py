"""medserve.v1.ImageClassification with the real server and the model of the repository."""

import io
import struct
import zlib
from collections.abc import Iterator

import grpc
import numpy as np
import onnxruntime
import pytest
from google.rpc import code_pb2
from numpy.typing import NDArray
from PIL import Image

from calls.bad_request import code_of, violations
from medserve_proto.v1 import image_classification_pb2 as pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from servers.server_process import REPOSITORY, ServerProcess

MODEL = "chest-xray"
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> ImageClassificationStub:
    return ImageClassificationStub(channel)


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(REPOSITORY / f"models/{MODEL}/1/model.onnx", providers=["CPUExecutionProvider"])


def noise(seed: int, height: int, width: int) -> Pixels:
    """Returns smooth gray noise, which resizing preserves."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: NDArray[np.generic], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def raw(pixels: Pixels) -> pb.Image:
    return pb.Image(raw=pb.RawImage(pixels=pixels.tobytes(), shape=pixels.shape))


def classify(stub: ImageClassificationStub, *images: pb.Image | bytes, top_k: int = 0) -> pb.ClassifyResponse:
    wrapped = [image if isinstance(image, pb.Image) else pb.Image(encoded=image) for image in images]
    return stub.Classify(pb.ClassifyRequest(model_name=MODEL, images=wrapped, top_k=top_k, request_id="r-1"))


def expected(session: onnxruntime.InferenceSession, *pixels: Pixels) -> NDArray[np.float32]:
    batch = np.stack([image.reshape(28, 28, 1) for image in pixels])
    (probabilities,) = session.run(["probabilities"], {"image": batch})
    return np.asarray(probabilities)


def probabilities(result: pb.ImageResult) -> dict[str, float]:
    return {entry.label: entry.probability for entry in result.labels}


def changes(result: pb.ImageResult) -> list[pb.ImageWarning]:
    """Returns the warnings about preprocessing, without the one about novelty that noise always causes."""
    return [warning for warning in result.warnings if warning.kind != pb.ImageWarning.KIND_UNFAMILIAR]


def test_raw_and_encoded_images_give_the_output_of_onnx_runtime(
    stub: ImageClassificationStub, session: onnxruntime.InferenceSession
) -> None:
    arrays = [noise(seed, 28, 28) for seed in range(20)]
    images = [raw(pixels) if index % 2 else encode(pixels) for index, pixels in enumerate(arrays)]
    response = classify(stub, *images)
    assert (response.model_name, response.model_version, response.request_id) == (MODEL, "1", "r-1")
    for result, row in zip(response.results, expected(session, *arrays), strict=True):
        assert probabilities(result) == pytest.approx({"normal": row[0], "pneumonia": row[1]}, abs=1e-6)
        assert [entry.probability for entry in result.labels] == sorted(row, reverse=True)
        assert not changes(result)
        decided = "pneumonia" if row[1] >= result.decision.threshold else "normal"
        assert (result.decision.label, result.decision.positive_label) == (decided, "pneumonia")
        assert result.decision.operating_point == "sensitivity-0.95"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_lossless_formats_give_equal_results(stub: ImageClassificationStub, kind: str) -> None:
    pixels = noise(3, 28, 28)
    assert classify(stub, encode(pixels, kind)).results == classify(stub, raw(pixels)).results


def test_jpeg_gives_approximately_equal_results(stub: ImageClassificationStub) -> None:
    pixels = noise(3, 28, 28)
    of_jpeg, of_raw = (
        probabilities(classify(stub, image).results[0]) for image in (encode(pixels, "JPEG"), raw(pixels))
    )
    assert of_jpeg == pytest.approx(of_raw, abs=0.1)


def test_preprocessing_is_reported(stub: ImageClassificationStub) -> None:
    color = np.repeat(noise(5, 100, 60)[..., None], 3, axis=2)
    (result,) = classify(stub, encode(color)).results
    kinds = [pb.ImageWarning.Kind.Name(warning.kind) for warning in changes(result)]
    assert kinds == ["KIND_COLOR_CONVERTED", "KIND_CROPPED", "KIND_RESIZED"]
    assert [warning.message for warning in changes(result)] == [
        "converted from RGB to L",
        "cropped to the central 60 x 60 of 60 x 100",
        "resized from 60 x 60 to 28 x 28",
    ]


def test_16_bit_samples_are_scaled_not_clipped(stub: ImageClassificationStub) -> None:
    pixels = noise(6, 28, 28)
    deep = encode(pixels.astype(np.uint16) * 257)
    (of_deep,), (of_raw,) = classify(stub, deep).results, classify(stub, raw(pixels)).results
    assert of_deep.labels == of_raw.labels
    assert of_deep.warnings[0].kind == pb.ImageWarning.KIND_DEPTH_REDUCED


def test_top_k_limits_the_labels(stub: ImageClassificationStub) -> None:
    (result,) = classify(stub, raw(noise(1, 28, 28)), top_k=1).results
    assert len(result.labels) == 1


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that declares a size but contains almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(noise(seed, 28, 28)) for seed in range(3)]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def transparent() -> bytes:
    return encode(np.full((28, 28, 4), 100, np.uint8))


GOOD = noise(0, 28, 28)
BAD_IMAGES: dict[str, tuple[pb.Image | bytes, str, str]] = {
    "truncated PNG": (encode(noise(0, 200, 200))[:-300], "encoded", "is corrupt"),
    "text file named PNG": (b"not an image\n" * 50, "encoded", "is not a PNG, JPEG, TIFF or DICOM file"),
    "empty file": (b"", "encoded", "is not a PNG, JPEG, TIFF or DICOM file"),
    "unsupported format": (encode(GOOD, "GIF"), "encoded", "is not a PNG, JPEG, TIFF or DICOM file"),
    "100 megapixels": (png_header(10_000, 10_000), "encoded", "= 100.0 megapixels, at most 40"),
    "2 billion pixels wide and high": (png_header(2**31 - 1, 2**31 - 1), "encoded", "megapixels, at most 40"),
    "several frames": (animated(), "encoded", "has 3 frames, expected one"),
    "transparent": (transparent(), "encoded", "transparent"),
    "32-bit floats": (encode(GOOD.astype(np.float32), "TIFF"), "encoded", "32-bit"),
    "raw, wrong shape": (raw(noise(0, 28, 27)), "raw.shape", "is [28, 27], expected [28, 28, 1]"),
    "raw, three channels": (raw(np.zeros((28, 28, 3), np.uint8)), "raw.shape", "expected [28, 28, 1]"),
    "raw, too few bytes": (
        pb.Image(raw=pb.RawImage(pixels=bytes(783), shape=[28, 28])),
        "raw.pixels",
        "has 783 bytes, expected 784",
    ),
    "neither encoded nor raw": (pb.Image(), "", "is empty; set encoded or raw"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_invalid_image_is_refused_with_its_index(stub: ImageClassificationStub, name: str) -> None:
    image, part, text = BAD_IMAGES[name]
    with pytest.raises(grpc.RpcError) as caught:
        classify(stub, raw(GOOD), image, raw(GOOD))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    found = violations(caught.value)
    assert list(found) == [f"images[1].{part}".rstrip(".")]
    assert all(text in description for description in found.values())
    assert classify(stub, raw(GOOD)).results, "the server still responds"


def test_all_invalid_images_of_a_request_are_reported(stub: ImageClassificationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        classify(stub, b"no", raw(GOOD), b"text")
    assert list(violations(caught.value)) == ["images[0].encoded", "images[2].encoded"]


def test_request_without_images_is_refused(stub: ImageClassificationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        classify(stub)
    assert violations(caught.value) == {"images": "has 0 entries, expected 1 to 4096"}


def test_model_of_another_kind_is_refused(stub: ImageClassificationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(pb.ClassifyRequest(model_name="breast-cancer-risk", images=[raw(GOOD)]))
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION


def test_highest_version_is_the_default(zoo_channel: grpc.Channel) -> None:
    stub = ImageClassificationStub(zoo_channel)
    for asked, answered in (("", "2"), ("1", "1"), ("2", "2")):
        request = pb.ClassifyRequest(model_name=MODEL, model_version=asked, images=[raw(GOOD)])
        assert stub.Classify(request).model_version == answered


def test_stream_preserves_order_and_survives_an_invalid_image(
    stub: ImageClassificationStub, session: onnxruntime.InferenceSession
) -> None:
    arrays = [noise(seed, 28, 28) for seed in range(100)]

    def requests() -> Iterator[pb.ClassifyRequest]:
        for index, pixels in enumerate(arrays):
            image = pb.Image(encoded=b"broken") if index % 7 == 2 else raw(pixels)
            yield pb.ClassifyRequest(model_name=MODEL, images=[image], request_id=str(index))

    rows = expected(session, *arrays)
    responses = list(stub.ClassifyStream(requests()))
    assert [response.request_id for response in responses] == [str(index) for index in range(100)]
    for index, response in enumerate(responses):
        if index % 7 == 2:
            assert response.error.code == code_pb2.INVALID_ARGUMENT
            assert "images[0].encoded" in response.error.message
        else:
            answered = probabilities(response.response.results[0])["pneumonia"]
            assert answered == pytest.approx(rows[index][1], abs=1e-6)


def test_cancelled_stream_does_not_affect_other_clients(stub: ImageClassificationStub, server: ServerProcess) -> None:
    def endless() -> Iterator[pb.ClassifyRequest]:
        while True:
            yield pb.ClassifyRequest(model_name=MODEL, images=[raw(GOOD)])

    for _ in range(5):
        call = stub.ClassifyStream(endless())
        next(call)
        call.cancel()
    assert classify(stub, raw(GOOD)).results
    assert server.process.poll() is None
