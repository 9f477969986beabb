"""Why an image got its labels, through the real server and a model whose right answers are known."""

import io
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calls.bad_request import code_of, violations
from medserve_proto.v1 import image_classification_pb2 as pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from samples import explained_models as known
from servers.server_process import ServerProcess

Pixels = NDArray[np.uint8]
PATCHES = 49


@pytest.fixture(scope="module")
def stub(explaining: ServerProcess) -> Iterator[ImageClassificationStub]:
    with grpc.insecure_channel(explaining.target) as channel:
        yield ImageClassificationStub(channel)


def picture(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (known.HEIGHT, known.WIDTH), dtype=np.uint8)


def request(*pictures: Pixels, reasons: pb.ImageReasons | None = None, model: str = "lesions") -> pb.ClassifyRequest:
    images = [pb.Image(raw=pb.RawImage(pixels=pixels.tobytes(), shape=pixels.shape)) for pixels in pictures]
    return pb.ClassifyRequest(model_name=model, images=images, reasons=reasons)


def grid(one: pb.ReasonMap) -> NDArray[np.float64]:
    return np.array(one.values).reshape(one.height, one.width)


def expected_falls(pixels: Pixels) -> NDArray[np.float64]:
    """The occlusion map of p(lesion), patch by patch: 4 x 6 pixels on cells of 2 x 3, cut off at the border."""
    falls = np.empty((7, 7))
    for row in range(7):
        for column in range(7):
            covered = pixels.copy()
            down = slice(max(0, round(2 * row - 1)), round(2 * row + 3))
            across = slice(max(0, round(3 * column - 1.5)), round(3 * column + 4.5))
            covered[down, across] = round(pixels.mean())
            falls[row, column] = known.lesion_probability(pixels) - known.lesion_probability(covered)
    return falls


def test_an_occlusion_map_tells_how_far_the_probability_falls(stub: ImageClassificationStub) -> None:
    pictures = [picture(seed) for seed in range(3)]
    response = stub.Classify(request(*pictures, reasons=pb.ImageReasons(label="lesion", occlusion=True)))
    for pixels, result in zip(pictures, response.results, strict=True):
        assert result.occlusion.label == "lesion"
        np.testing.assert_allclose(grid(result.occlusion), expected_falls(pixels), atol=1e-6)
        assert not result.HasField("class_activation")
        assert not result.occlusion.overlay_png


def test_a_map_speaks_of_the_decision_unless_a_label_is_named(stub: ImageClassificationStub) -> None:
    (result,) = stub.Classify(request(picture(1), reasons=pb.ImageReasons(occlusion=True))).results
    assert result.occlusion.label == result.decision.label == "clear"
    np.testing.assert_allclose(grid(result.occlusion), -expected_falls(picture(1)), atol=1e-6)


def test_activations_and_feature_maps_come_from_the_graph(stub: ImageClassificationStub) -> None:
    pictures = [picture(seed) for seed in range(4)]
    wishes = pb.ImageReasons(label="lesion", class_activation=True, feature_maps=["pool"], occlusion=True)
    for pixels, result in zip(pictures[:2], stub.Classify(request(*pictures[:2], reasons=wishes)).results, strict=True):
        means = pixels.reshape(2, 7, 3, 7).mean(axis=(1, 3)) / 255
        np.testing.assert_allclose(grid(result.class_activation), means, atol=1e-6)
        (maps,) = result.feature_maps
        assert (maps.layer, maps.channels, maps.height, maps.width) == ("pool", 1, 2, 3)
        np.testing.assert_allclose(np.frombuffer(maps.values, "<f4").reshape(2, 3), means, atol=1e-6)
        np.testing.assert_allclose(grid(result.occlusion), expected_falls(pixels), atol=1e-6)


def test_an_answer_is_the_same_with_and_without_reasons(stub: ImageClassificationStub) -> None:
    pictures = [picture(seed) for seed in range(2)]
    wishes = pb.ImageReasons(class_activation=True, occlusion=True, overlay=True, feature_maps=["pool"])
    explained, plain = (stub.Classify(request(*pictures, reasons=reasons)).results for reasons in (wishes, None))
    for one, other in zip(explained, plain, strict=True):
        assert not other.HasField("occlusion")
        for field in ("class_activation", "occlusion", "feature_maps"):
            one.ClearField(field)
        assert one == other


def test_an_overlay_is_red_for_the_label_and_blue_against_it(stub: ImageClassificationStub) -> None:
    dark = np.zeros((known.HEIGHT, known.WIDTH), np.uint8)
    dark[:7, :7] = 255  # the whole activation map is of this corner
    for label, strong, weak in (("lesion", 0, 2), ("clear", 2, 0)):
        wishes = pb.ImageReasons(label=label, class_activation=True, overlay=True)
        (result,) = stub.Classify(request(dark, reasons=wishes)).results
        drawing = np.asarray(Image.open(io.BytesIO(result.class_activation.overlay_png)).convert("RGB"), np.int64)
        assert drawing.shape[1] == 16 * known.WIDTH
        assert drawing[8, 8, strong] > drawing[8, 8, weak] + 50
        np.testing.assert_array_equal(drawing[200, 320], 0)  # black, and of no weight


def test_the_spread_of_the_members_is_told_unasked(stub: ImageClassificationStub) -> None:
    (result,) = stub.Classify(request(picture(0))).results
    top = result.labels[0]
    assert result.uncertainty == pytest.approx(np.std(known.MEMBERS) * top.probability, rel=1e-5)
    assert result.novelty == pytest.approx(picture(0).mean(), rel=1e-5)
    assert not result.warnings


def test_an_unfamiliar_picture_carries_a_warning_unasked(stub: ImageClassificationStub) -> None:
    bright = np.full((known.HEIGHT, known.WIDTH), 250, np.uint8)
    plain, (explained,) = (
        stub.Classify(request(picture(0), bright)).results,
        stub.Classify(request(bright, reasons=pb.ImageReasons(occlusion=True))).results,
    )
    assert not plain[0].warnings
    for result in (plain[1], explained):
        (warning,) = result.warnings
        assert warning.kind == pb.ImageWarning.KIND_UNFAMILIAR
        assert warning.message == ("unlike the images that the model was trained on: novelty 250, expected up to 200")


def test_a_model_without_the_outputs_tells_what_any_model_can(stub: ImageClassificationStub) -> None:
    wishes = pb.ImageReasons(label="lesion", occlusion=True)
    (result,) = stub.Classify(request(picture(2), reasons=wishes, model="plain-lesions")).results
    np.testing.assert_allclose(grid(result.occlusion), expected_falls(picture(2)), atol=1e-6)
    assert not result.HasField("uncertainty")
    assert not result.HasField("novelty")


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        (pb.ImageReasons(class_activation=True), "model plain-lesions was exported without class activation maps"),
        (pb.ImageReasons(feature_maps=["pool"]), "model plain-lesions was exported without feature maps"),
    ],
)
def test_what_a_model_was_exported_without_is_refused(
    stub: ImageClassificationStub, wishes: pb.ImageReasons, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(request(picture(0), reasons=wishes, model="plain-lesions"))
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION
    assert text in str(caught.value)


BAD_WISHES: dict[str, tuple[pb.ImageReasons, int, str, str]] = {
    "unknown label": (pb.ImageReasons(label="tumor"), 1, "label", "is 'tumor', expected one of clear, lesion"),
    "endless label": (pb.ImageReasons(label="x" * 9999), 1, "label", f"is '{'x' * 64}', expected one of"),
    "unknown layer": (pb.ImageReasons(feature_maps=["top"]), 1, "feature_maps[0]", "is 'top', expected one of pool"),
    "a layer twice": (
        pb.ImageReasons(feature_maps=["pool"] * 1000),
        1,
        "feature_maps[1]",
        "is pool, which is already listed",
    ),
    "nothing to draw": (pb.ImageReasons(overlay=True, feature_maps=["pool"]), 1, "overlay", "requires a map to draw"),
    "too many rows": (
        pb.ImageReasons(occlusion=True),
        9,
        "occlusion",
        "needs 450 rows for 9 images, at most 400 are computed per request; send fewer images per request",
    ),
    "too many drawings": (
        pb.ImageReasons(class_activation=True, overlay=True),
        50,
        "",
        "need 12.1 MiB for 50 images, at most 2 are allowed per request; send fewer images per request",
    ),
}


@pytest.mark.parametrize("name", BAD_WISHES)
def test_a_wish_that_makes_no_sense_is_refused_with_its_field(stub: ImageClassificationStub, name: str) -> None:
    wishes, count, field, text = BAD_WISHES[name]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(request(*([picture(0)] * count), reasons=wishes))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    found = violations(caught.value)
    assert list(found) == [f"reasons.{field}".rstrip(".")]
    assert text in next(iter(found.values()))


def test_every_bad_wish_of_a_request_is_named(stub: ImageClassificationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(request(picture(0), reasons=pb.ImageReasons(label="a", feature_maps=["b"], overlay=True)))
    assert list(violations(caught.value)) == ["reasons.label", "reasons.feature_maps[0]", "reasons.overlay"]


def test_a_stream_explains_what_it_is_asked_to(stub: ImageClassificationStub) -> None:
    wishes = {0: None, 1: pb.ImageReasons(label="lesion", occlusion=True), 2: pb.ImageReasons(label="none")}
    asked = (request(picture(seed), reasons=wishes[seed % 3]) for seed in range(30))
    for seed, response in enumerate(stub.ClassifyStream(asked)):
        match seed % 3:
            case 0:
                assert not response.response.results[0].HasField("occlusion")
            case 1:
                falls = grid(response.response.results[0].occlusion)
                np.testing.assert_allclose(falls, expected_falls(picture(seed)), atol=1e-6)
            case 2:
                assert "reasons.label: is 'none'" in response.error.message


def test_the_cost_of_reasons_is_in_the_metrics(stub: ImageClassificationStub, explaining: ServerProcess) -> None:
    def counted(reason: str) -> tuple[float, float]:
        series = f'{{model="lesions",reason="{reason}",version="1"}}'
        return (
            explaining.sample(f"medserve_reasons_duration_seconds_count{series}"),
            explaining.sample(f"medserve_reason_rows_total{series}"),
        )

    wishes = pb.ImageReasons(class_activation=True, occlusion=True, overlay=True)
    stub.Classify(request(picture(0), reasons=wishes))
    before = {reason: counted(reason) for reason in ("class_activation", "occlusion", "overlay")}
    stub.Classify(request(picture(0), picture(1), reasons=wishes))
    stub.Classify(request(picture(0)))
    rise = {reason: np.subtract(counted(reason), count).tolist() for reason, count in before.items()}
    assert rise == {"class_activation": [1, 0], "occlusion": [1, 2 * PATCHES], "overlay": [1, 0]}
