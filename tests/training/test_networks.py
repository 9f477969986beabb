import numpy as np
import pytest
import torch
from torch import nn

from medserve_training.errors import UserError
from medserve_training.network_settings import BaselineCnn
from medserve_training.networks.baseline import baseline_cnn
from medserve_training.networks.image import ImageClassifier, ImageGraph
from medserve_training.networks.image_network import GlobalPool, ImageNetwork
from medserve_training.networks.risk import RiskModel, SurvivalCurve, baseline_risk_cnn, start_at_hazard

ARTICLE = BaselineCnn("baseline-cnn")


def shapes(network: nn.Module, rows: torch.Tensor) -> list[tuple[str, tuple[int, ...]]]:
    found: list[tuple[str, tuple[int, ...]]] = []
    for layer in leaves(network):
        layer.register_forward_hook(
            lambda layer, _, output: found.append((type(layer).__name__, tuple(output.shape[1:])))
        )
    network(rows)
    return found


def leaves(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if not list(layer.children())]


def test_baseline_cnn_is_the_articles_layer_by_layer() -> None:
    network = baseline_cnn(ARTICLE, (1, 28, 28), 10)
    assert shapes(network, torch.zeros(2, 1, 28, 28)) == [
        ("Conv2d", (32, 26, 26)),
        ("ReLU", (32, 26, 26)),
        ("MaxPool2d", (32, 13, 13)),
        ("Conv2d", (64, 11, 11)),
        ("ReLU", (64, 11, 11)),
        ("MaxPool2d", (64, 5, 5)),
        ("Conv2d", (64, 3, 3)),
        ("ReLU", (64, 3, 3)),
        ("Flatten", (576,)),
        ("Linear", (64,)),
        ("ReLU", (64,)),
        ("Linear", (10,)),
    ]
    # As Keras's summary of that model counts: 320, 18496, 36928, 36928, 650.
    assert [sum(p.numel() for p in layer.parameters()) for layer in leaves(network) if list(layer.parameters())] == [
        320,
        18496,
        36928,
        36928,
        650,
    ]


def test_baseline_risk_cnn_is_the_articles_layer_by_layer() -> None:
    network = baseline_risk_cnn(8, 1)
    assert shapes(network, torch.zeros(2, 8)) == [
        ("Unflatten", (1, 8)),
        ("Conv1d", (32, 6)),
        ("ReLU", (32, 6)),
        ("MaxPool1d", (32, 3)),
        ("Flatten", (96,)),
        ("Linear", (64,)),
        ("ReLU", (64,)),
        ("Linear", (1,)),
    ]
    assert sum(parameter.numel() for parameter in network.parameters()) == 128 + 6208 + 65


def test_weights_start_as_keras_would() -> None:
    first = leaves(baseline_cnn(ARTICLE, (1, 28, 28), 2))[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    limit = (6 / (9 + 9 * 32)) ** 0.5
    assert 0.9 * limit < first.weight.abs().max() <= limit
    assert not first.bias.any()


@pytest.mark.parametrize("size", [8, 17])
def test_a_picture_too_small_for_the_network_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"baseline-cnn needs larger pictures than {size} x 28"):
        baseline_cnn(ARTICLE, (1, size, 28), 2)


def test_too_few_covariates_are_refused() -> None:
    with pytest.raises(UserError, match="at least 4 covariates"):
        baseline_risk_cnn(3, 1)


def small(maximum: bool = True) -> ImageNetwork:
    return ImageNetwork(
        {"conv": nn.Conv2d(3, 4, 3)}, GlobalPool(maximum=maximum, dropout=0.5), nn.Linear(8 - 4 * (not maximum), 2)
    )


def test_image_probabilities_do_not_depend_on_the_pixels_unit() -> None:
    classifier = ImageClassifier(small(), np.zeros(3), np.ones(3))
    other = ImageClassifier(classifier.network, np.full(3, 10.0), np.ones(3))
    pixels = torch.randint(0, 200, (4, 5, 5, 3), dtype=torch.uint8)
    first, second = ImageGraph([classifier]).eval(), ImageGraph([other]).eval()
    torch.testing.assert_close(first(pixels)[0], second(pixels + 10)[0])
    torch.testing.assert_close(first(pixels)[0].sum(dim=1), torch.ones(4))


def test_survival_is_the_product_of_one_minus_the_hazards() -> None:
    model = RiskModel(baseline_risk_cnn(8, 12), np.full(8, np.nan), np.zeros(8), np.ones(8))
    features = torch.randn(5, 8)
    hazards = torch.sigmoid(model(features))
    expected = torch.cumprod(torch.cat([torch.ones(5, 1), 1 - hazards], dim=1), dim=1)
    torch.testing.assert_close(SurvivalCurve(model)(features), expected)


def test_a_network_can_start_at_the_cohorts_hazard() -> None:
    network = baseline_risk_cnn(8, 3)
    start_at_hazard(network, torch.tensor([0.1, 0.0, 0.5]))
    hazard = torch.sigmoid(network(torch.zeros(1, 8)))[0]
    torch.testing.assert_close(hazard, torch.tensor([0.1, 1e-4, 0.5]))
