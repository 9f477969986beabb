import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from medserve_training.export.inference import open_session, predict
from medserve_training.export.onnx_file import to_onnx
from medserve_training.metrics.calibration import Temperature
from medserve_training.networks.images.classifier import ImageClassifier, ImageGraph, both_logits, image_network
from medserve_training.networks.novelty import Mahalanobis
from medserve_training.recipes.network_settings import ResidualSe, ResNet

SMALL = ResidualSe("residual-se", widths=(4, 4, 8))
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 1), dtype=np.uint8)
LABELS = np.arange(20) % 3


def classifier(seed: int, settings: ResidualSe | ResNet = SMALL, outputs: int = 3) -> ImageClassifier:
    torch.manual_seed(seed)
    network = image_network(settings, (1, 12, 12), outputs)
    # Batch norms with nontrivial statistics.
    network(torch.randn(64, 1, 12, 12))
    return ImageClassifier(network, np.full(1, 128.0), np.full(1, 64.0)).eval()


@pytest.fixture(scope="module")
def graph() -> ImageGraph:
    members = [classifier(0), classifier(1)]
    novelty = [Mahalanobis(member.features(PIXELS), LABELS) for member in members]
    return ImageGraph(members, Temperature(1.5), novelty, ["pool1", "conv1"]).eval()


@torch.no_grad()
def outputs(graph: ImageGraph, pixels: NDArray[np.uint8] = PIXELS) -> dict[str, Tensor]:
    return dict(zip(graph.names, graph(torch.from_numpy(pixels)), strict=True))


def test_outputs_have_the_specified_names_and_shapes(graph: ImageGraph) -> None:
    assert {name: tuple(value.shape) for name, value in outputs(graph).items()} == {
        "probabilities": (20, 3),
        "member_probabilities": (20, 2, 3),
        "novelty": (20,),
        "class_activation": (20, 3, 3, 3),
        "feature_map.pool1": (20, 4, 6, 6),
        "feature_map.conv1": (20, 4, 12, 12),
    }


def test_a_single_plain_member_outputs_only_probabilities_and_its_map() -> None:
    assert ImageGraph([classifier(0)]).names == ["probabilities", "class_activation"]


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    members = [classifier(0), classifier(1)]
    found = outputs(ImageGraph(members).eval())
    alone = [outputs(ImageGraph([member]).eval()) for member in members]
    for index in range(2):
        torch.testing.assert_close(found["member_probabilities"][:, index], alone[index]["probabilities"])
    torch.testing.assert_close(found["probabilities"], found["member_probabilities"].mean(dim=1))
    both = torch.stack([each["class_activation"] for each in alone])
    torch.testing.assert_close(found["class_activation"], both.mean(dim=0))


@pytest.mark.parametrize("settings", [SMALL, ResNet("resnet", widths=(4, 8), blocks=1)])
@torch.no_grad()
def test_a_class_activation_map_sums_to_the_logit_without_its_bias(settings: ResidualSe | ResNet) -> None:
    member = classifier(2, settings)
    maps = outputs(ImageGraph([member]).eval())["class_activation"]
    logits = member(torch.from_numpy(PIXELS)) - member.network.head.bias
    torch.testing.assert_close(maps.sum(dim=(2, 3)), logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_one_logit_is_the_difference_of_two() -> None:
    logit = torch.randn(10, 1)
    torch.testing.assert_close(torch.softmax(both_logits(logit), dim=1)[:, 1:], torch.sigmoid(logit))
    member = classifier(0, outputs=1)
    found = outputs(ImageGraph([member]).eval())
    torch.testing.assert_close(found["probabilities"][:, 1:], torch.sigmoid(member(torch.from_numpy(PIXELS))))
    torch.testing.assert_close(found["class_activation"][:, 0], -found["class_activation"][:, 1])


def test_novelty_is_the_distance_to_the_nearest_class() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(300) % 2
    features = random.normal(0, [1, 5, 1], (300, 3)) + labels[:, np.newaxis] * [0, 0, 8]
    means = np.stack([features[labels == label].mean(axis=0) for label in (0, 1)])
    precision = LedoitWolf(assume_centered=True).fit(features - means[labels]).precision_
    rows = random.normal(0, 6, (50, 3))
    apart = rows[:, np.newaxis] - means
    expected = np.sqrt(np.einsum("nci,ij,ncj->nc", apart, precision, apart).min(axis=1))
    found = Mahalanobis(features, labels)(torch.tensor(rows, dtype=torch.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_onnx_runtime_reproduces_every_output_of_pytorch(graph: ImageGraph) -> None:
    exported = to_onnx(graph, torch.from_numpy(PIXELS[:2]), graph.names)
    onnx.checker.check_model(exported, full_check=True)
    session = open_session(exported.SerializeToString())
    assert [output.name for output in session.get_outputs()] == graph.names
    for name, expected in outputs(graph).items():
        for size in (1, 20):
            found = predict(session, PIXELS, name, batch_size=size)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_an_image_unlike_the_training_data_has_high_novelty() -> None:
    member = classifier(0)
    random = np.random.default_rng(1)
    smooth = np.repeat(np.repeat(random.integers(80, 160, (200, 3, 3, 1)), 4, axis=1), 4, axis=2).astype(np.uint8)
    score = Mahalanobis(member.features(smooth[:150]), np.arange(150) % 2)
    known, noise = (score(torch.tensor(member.features(rows)).float()) for rows in (smooth[150:], PIXELS))
    assert noise.min() > known.max()
    assert isinstance(score, nn.Module)
