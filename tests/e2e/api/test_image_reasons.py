"""Explanations of image classifications, by the real server and a model whose results are known."""

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


def noise(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (known.HEIGHT, known.WIDTH), dtype=np.uint8)


def request(*arrays: Pixels, reasons: pb.ImageReasons | None = None, model: str = "lesions") -> pb.ClassifyRequest:
    images = [pb.Image(raw=pb.RawImage(pixels=pixels.tobytes(), shape=pixels.shape)) for pixels in arrays]
    return pb.ClassifyRequest(model_name=model, images=images, reasons=reasons)


def grid(one: pb.ReasonMap) -> NDArray[np.float64]:
    return np.array(one.values).reshape(one.height, one.width)


def expected_falls(pixels: Pixels) -> NDArray[np.float64]:
    """Computes the occlusion map of p(lesion): patches of 4 x 6 pixels on cells of 2 x 3, clipped at the border."""
    falls = np.empty((7, 7))
    for row in range(7):
        for column in range(7):
            covered = pixels.copy()
            down = slice(max(0, round(2 * row - 1)), round(2 * row + 3))
            across = slice(max(0, round(3 * column - 1.5)), round(3 * column + 4.5))
            covered[down, across] = round(pixels.mean())
            falls[row, column] = known.lesion_probability(pixels) - known.lesion_probability(covered)
    return falls


def test_occlusion_map_is_the_decrease_of_the_probability(stub: ImageClassificationStub) -> None:
    arrays = [noise(seed) for seed in range(3)]
    response = stub.Classify(request(*arrays, reasons=pb.ImageReasons(label="lesion", occlusion=True)))
    for pixels, result in zip(arrays, response.results, strict=True):
        assert result.occlusion.label == "lesion"
        np.testing.assert_allclose(grid(result.occlusion), expected_falls(pixels), atol=1e-6)
        assert not result.HasField("class_activation")
        assert not result.occlusion.overlay_png


def test_maps_explain_the_decision_unless_a_label_is_requested(stub: ImageClassificationStub) -> None:
    (result,) = stub.Classify(request(noise(1), reasons=pb.ImageReasons(occlusion=True))).results
    assert result.occlusion.label == result.decision.label == "clear"
    np.testing.assert_allclose(grid(result.occlusion), -expected_falls(noise(1)), atol=1e-6)


def test_activation_and_feature_maps_are_those_of_the_graph(stub: ImageClassificationStub) -> None:
    arrays = [noise(seed) for seed in range(4)]
    requested = pb.ImageReasons(label="lesion", class_activation=True, feature_maps=["pool"], occlusion=True)
    for pixels, result in zip(arrays[:2], stub.Classify(request(*arrays[:2], reasons=requested)).results, strict=True):
        means = pixels.reshape(2, 7, 3, 7).mean(axis=(1, 3)) / 255
        np.testing.assert_allclose(grid(result.class_activation), means, atol=1e-6)
        (maps,) = result.feature_maps
        assert (maps.layer, maps.channels, maps.height, maps.width) == ("pool", 1, 2, 3)
        np.testing.assert_allclose(np.frombuffer(maps.values, "<f4").reshape(2, 3), means, atol=1e-6)
        np.testing.assert_allclose(grid(result.occlusion), expected_falls(pixels), atol=1e-6)


def test_explanations_do_not_change_the_results(stub: ImageClassificationStub) -> None:
    arrays = [noise(seed) for seed in range(2)]
    requested = pb.ImageReasons(class_activation=True, occlusion=True, overlay=True, feature_maps=["pool"])
    explained, plain = (stub.Classify(request(*arrays, reasons=reasons)).results for reasons in (requested, None))
    for one, other in zip(explained, plain, strict=True):
        assert not other.HasField("occlusion")
        for field in ("class_activation", "occlusion", "feature_maps"):
            one.ClearField(field)
        assert one == other


def test_overlay_is_red_for_the_label_and_blue_against_it(stub: ImageClassificationStub) -> None:
    dark = np.zeros((known.HEIGHT, known.WIDTH), np.uint8)
    dark[:7, :7] = 255  # only this corner activates
    for label, strong, weak in (("lesion", 0, 2), ("clear", 2, 0)):
        requested = pb.ImageReasons(label=label, class_activation=True, overlay=True)
        (result,) = stub.Classify(request(dark, reasons=requested)).results
        drawing = np.asarray(Image.open(io.BytesIO(result.class_activation.overlay_png)).convert("RGB"), np.int64)
        assert drawing.shape[1] == 16 * known.WIDTH
        assert drawing[8, 8, strong] > drawing[8, 8, weak] + 50
        np.testing.assert_array_equal(drawing[200, 320], 0)  # black, with zero weight


def test_ensemble_spread_is_always_returned(stub: ImageClassificationStub) -> None:
    (result,) = stub.Classify(request(noise(0))).results
    top = result.labels[0]
    assert result.uncertainty == pytest.approx(np.std(known.MEMBERS) * top.probability, rel=1e-5)
    assert result.novelty == pytest.approx(noise(0).mean(), rel=1e-5)
    assert not result.warnings


def test_unfamiliar_image_always_has_a_warning(stub: ImageClassificationStub) -> None:
    bright = np.full((known.HEIGHT, known.WIDTH), 250, np.uint8)
    plain, (explained,) = (
        stub.Classify(request(noise(0), bright)).results,
        stub.Classify(request(bright, reasons=pb.ImageReasons(occlusion=True))).results,
    )
    assert not plain[0].warnings
    for result in (plain[1], explained):
        (warning,) = result.warnings
        assert warning.kind == pb.ImageWarning.KIND_UNFAMILIAR
        assert warning.message == ("unlike the images that the model was trained on: novelty 250, expected up to 200")


def test_model_without_explanation_outputs_supports_occlusion(stub: ImageClassificationStub) -> None:
    requested = pb.ImageReasons(label="lesion", occlusion=True)
    (result,) = stub.Classify(request(noise(2), reasons=requested, model="plain-lesions")).results
    np.testing.assert_allclose(grid(result.occlusion), expected_falls(noise(2)), atol=1e-6)
    assert not result.HasField("uncertainty")
    assert not result.HasField("novelty")


@pytest.mark.parametrize(
    ("requested", "text"),
    [
        (pb.ImageReasons(class_activation=True), "model plain-lesions was exported without class activation maps"),
        (pb.ImageReasons(feature_maps=["pool"]), "model plain-lesions was exported without feature maps"),
    ],
)
def test_explanation_without_its_output_is_refused(
    stub: ImageClassificationStub, requested: pb.ImageReasons, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(request(noise(0), reasons=requested, model="plain-lesions"))
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION
    assert text in str(caught.value)


INVALID_REASONS: dict[str, tuple[pb.ImageReasons, int, str, str]] = {
    "unknown label": (pb.ImageReasons(label="tumor"), 1, "label", "is 'tumor', expected one of clear, lesion"),
    "very long label": (pb.ImageReasons(label="x" * 9999), 1, "label", f"is '{'x' * 64}', expected one of"),
    "unknown layer": (pb.ImageReasons(feature_maps=["top"]), 1, "feature_maps[0]", "is 'top', expected one of pool"),
    "repeated layer": (
        pb.ImageReasons(feature_maps=["pool"] * 1000),
        1,
        "feature_maps[1]",
        "is pool, which is already listed",
    ),
    "overlay without a map": (
        pb.ImageReasons(overlay=True, feature_maps=["pool"]),
        1,
        "overlay",
        "requires a map to draw",
    ),
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


@pytest.mark.parametrize("name", INVALID_REASONS)
def test_invalid_reasons_are_refused_with_their_field(stub: ImageClassificationStub, name: str) -> None:
    requested, count, field, text = INVALID_REASONS[name]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(request(*([noise(0)] * count), reasons=requested))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    found = violations(caught.value)
    assert list(found) == [f"reasons.{field}".rstrip(".")]
    assert text in next(iter(found.values()))


def test_all_invalid_reasons_of_a_request_are_reported(stub: ImageClassificationStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(request(noise(0), reasons=pb.ImageReasons(label="a", feature_maps=["b"], overlay=True)))
    assert list(violations(caught.value)) == ["reasons.label", "reasons.feature_maps[0]", "reasons.overlay"]


def test_stream_explains_only_requests_that_ask_for_it(stub: ImageClassificationStub) -> None:
    requested = {0: None, 1: pb.ImageReasons(label="lesion", occlusion=True), 2: pb.ImageReasons(label="none")}
    asked = (request(noise(seed), reasons=requested[seed % 3]) for seed in range(30))
    for seed, response in enumerate(stub.ClassifyStream(asked)):
        match seed % 3:
            case 0:
                assert not response.response.results[0].HasField("occlusion")
            case 1:
                falls = grid(response.response.results[0].occlusion)
                np.testing.assert_allclose(falls, expected_falls(noise(seed)), atol=1e-6)
            case 2:
                assert "reasons.label: is 'none'" in response.error.message


def test_metrics_count_explanations(stub: ImageClassificationStub, explaining: ServerProcess) -> None:
    def counted(reason: str) -> tuple[float, float]:
        series = f'{{model="lesions",reason="{reason}",version="1"}}'
        return (
            explaining.sample(f"medserve_reasons_duration_seconds_count{series}"),
            explaining.sample(f"medserve_reason_rows_total{series}"),
        )

    requested = pb.ImageReasons(class_activation=True, occlusion=True, overlay=True)
    stub.Classify(request(noise(0), reasons=requested))
    before = {reason: counted(reason) for reason in ("class_activation", "occlusion", "overlay")}
    stub.Classify(request(noise(0), noise(1), reasons=requested))
    stub.Classify(request(noise(0)))
    rise = {reason: np.subtract(counted(reason), count).tolist() for reason, count in before.items()}
    assert rise == {"class_activation": [1, 0], "occlusion": [1, 2 * PATCHES], "overlay": [1, 0]}
