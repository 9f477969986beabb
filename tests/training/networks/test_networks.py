import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from medserve_training.errors import UserError
from medserve_training.networks.images.baseline import baseline_cnn
from medserve_training.networks.images.classifier import ImageClassifier, ImageGraph, image_network
from medserve_training.networks.images.image_network import GlobalPool, ImageNetwork
from medserve_training.networks.images.residual import Residual
from medserve_training.networks.images.residual_se import SqueezeExcite
from medserve_training.networks.layers import initialize, pool
from medserve_training.networks.risk.survival import baseline_risk_cnn
from medserve_training.recipes.network_settings import (
    AlexNet,
    BaselineCnn,
    Initialization,
    LeNet5,
    ResidualSe,
    ResNet,
    Vgg,
)
from medserve_training.recipes.network_settings import (
    ImageNetworkSettings as Settings,
)

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


def test_baseline_cnn_equals_the_articles_network_layer_by_layer() -> None:
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
    # As in Keras's summary of that model: 320, 18496, 36928, 36928, 650.
    assert [sum(p.numel() for p in layer.parameters()) for layer in leaves(network) if list(layer.parameters())] == [
        320,
        18496,
        36928,
        36928,
        650,
    ]


def test_baseline_risk_cnn_equals_the_articles_network_layer_by_layer() -> None:
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


def test_initial_weights_follow_keras() -> None:
    first = leaves(baseline_cnn(ARTICLE, (1, 28, 28), 2))[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    limit = (6 / (9 + 9 * 32)) ** 0.5
    assert 0.9 * limit < first.weight.abs().max() <= limit
    assert not first.bias.any()


@pytest.mark.parametrize("size", [8, 17])
def test_an_image_too_small_for_the_network_is_rejected(size: int) -> None:
    with pytest.raises(UserError, match=f"baseline-cnn needs larger images than {size} x 28"):
        baseline_cnn(ARTICLE, (1, size, 28), 2)


def test_too_few_covariates_are_rejected() -> None:
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


NETWORKS: list[Settings] = [
    ARTICLE,
    LeNet5("lenet-5"),
    AlexNet("alexnet", width=4, dense=16),
    Vgg("vgg", widths=(4, 8, 8), dense=16),
    ResNet("resnet", widths=(4, 8, 8), blocks=1),
    ResidualSe("residual-se", widths=(4, 8, 8)),
]


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda settings: settings.name)
@pytest.mark.parametrize(("shape", "outputs"), [((1, 28, 28), 2), ((3, 28, 40), 7), ((3, 224, 224), 10)])
def test_every_network_accepts_gray_and_color_of_many_sizes(
    settings: Settings, shape: tuple[int, int, int], outputs: int
) -> None:
    network = image_network(settings, shape, outputs).eval()
    with torch.no_grad():
        assert network(torch.randn(2, *shape)).shape == (2, outputs)
    names = list(network.layers(torch.randn(1, *shape)))
    assert names == [name for name, _ in network.trunk.named_children()]


@pytest.mark.parametrize("settings", [*NETWORKS[:4]], ids=lambda settings: settings.name)
def test_an_image_that_pooling_reduces_to_nothing_is_rejected(settings: Settings) -> None:
    with pytest.raises(UserError, match=f"the network {settings.name} needs larger images than 6 x 28"):
        image_network(settings, (1, 6, 28), 2)


def test_lenet_5_has_the_originals_shapes_and_parameters() -> None:
    network = image_network(LeNet5("lenet-5"), (1, 28, 28), 10)
    shaped = [shape for name, shape in shapes(network, torch.zeros(1, 1, 28, 28)) if name in ("Conv2d", "Linear")]
    # C1, C3, C5, F6 and the output of LeCun et al. 1998, figure 2.
    assert shaped == [(6, 28, 28), (16, 10, 10), (120, 1, 1), (84,), (10,)]
    # 61,706 parameters, with C3 connected to every map.
    assert sum(parameter.numel() for parameter in network.parameters()) == 61706


def test_resnet_20_has_the_originals_depth_and_about_its_parameters() -> None:
    network = image_network(ResNet("resnet"), (3, 32, 32), 10)
    kernels = [layer.kernel_size for layer in leaves(network) if isinstance(layer, nn.Conv2d)]
    assert kernels.count((3, 3)) + 1 == 20
    # He et al. 2016, table 6: 0.27 million.
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(0.27e6, rel=0.03)


def test_each_network_setting_changes_its_layer() -> None:
    def kinds(**changed: object) -> list[str]:
        settings = dataclasses.replace(ARTICLE, **changed)  # type: ignore[arg-type]
        return [type(layer).__name__ for layer in leaves(image_network(settings, (1, 28, 28), 2))]

    assert kinds(pooling="average") == [kind.replace("Max", "Avg") for kind in kinds()]
    names = {"leaky-relu": "LeakyReLU", "elu": "ELU", "gelu": "GELU", "tanh": "Tanh", "sigmoid": "Sigmoid"}
    for activation, name in names.items():
        assert kinds(activation=activation) == [kind.replace("ReLU", name) for kind in kinds()]
    assert kinds(batch_norm=True).count("BatchNorm2d") == 3
    assert kinds(dropout=0.5) == [*kinds()[:-1], "Dropout", "Linear"]
    wide = image_network(dataclasses.replace(ARTICLE, widths=(5, 6, 7), kernel=5, dense=9), (1, 40, 40), 2)
    found = [tuple(parameter.shape) for parameter in wide.parameters() if parameter.ndim > 1]
    assert found == [(5, 1, 5, 5), (6, 5, 5, 5), (7, 6, 5, 5), (9, 7 * 3 * 3), (2, 9)]


def test_average_pooling_takes_the_mean_and_max_pooling_the_maximum() -> None:
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pool("average", 2)(maps).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool("max", 2)(maps).flatten().tolist() == [5, 7, 13, 15]


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        ("glorot-uniform", (2 / (300 + 100)) ** 0.5),
        ("glorot-normal", (2 / (300 + 100)) ** 0.5),
        ("he-uniform", (2 / 300) ** 0.5),
        ("he-normal", (2 / 300) ** 0.5),
    ],
)
def test_initial_weights_have_the_published_variance(name: Initialization, deviation: float) -> None:
    layer = nn.Linear(300, 100)
    initialize(layer, name)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.03)
    limit = deviation * 3**0.5
    assert (layer.weight.abs().max().item() <= limit + 1e-6) == name.endswith("uniform")
    assert not layer.bias.any()


def test_squeeze_and_excitation_weights_channels_and_not_positions() -> None:
    maps = torch.rand(3, 8, 5, 5) + 0.1
    ratio = SqueezeExcite(8)(maps) / maps
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()


def test_a_residual_block_with_zero_weights_is_the_identity() -> None:
    block = Residual(4, 4, "relu")
    nn.init.zeros_(list(block.layers.parameters())[-2])
    maps = torch.rand(2, 4, 6, 6)
    torch.testing.assert_close(block(maps), maps)
    assert Residual(4, 8, "relu", stride=2)(maps).shape == (2, 8, 3, 3)
