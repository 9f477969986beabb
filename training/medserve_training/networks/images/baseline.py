"""The articles' image network."""

from torch import nn

from medserve_training.networks.images.image_network import ImageNetwork, flat_size
from medserve_training.networks.layers import activate, dense, initialize, pool
from medserve_training.recipes.network_settings import BaselineCnn


def baseline_cnn(settings: BaselineCnn, shape: tuple[int, int, int], outputs: int) -> ImageNetwork:
    """Builds the network: three unpadded convolutions (Keras's "valid"), two poolings, two dense layers.

    Args:
        settings: The design choices that the articles discuss.
        shape: Channels, height and width of an image.
        outputs: Number of logits.

    Raises:
        UserError: The image is too small for three convolutions and two poolings.
    """
    first, second, third = settings.widths
    trunk = {
        "conv1": _convolution(settings, shape[0], first),
        "pool1": pool(settings.pooling, 2),
        "conv2": _convolution(settings, first, second),
        "pool2": pool(settings.pooling, 2),
        "conv3": _convolution(settings, second, third),
    }
    neck = nn.Sequential(
        nn.Flatten(),
        *dense(flat_size(trunk, shape, settings.name), settings.dense, settings.activation, settings.dropout),
    )
    network = ImageNetwork(trunk, neck, nn.Linear(settings.dense, outputs))
    initialize(network, settings.initialization)
    return network


def _convolution(settings: BaselineCnn, before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, settings.kernel),
        *([nn.BatchNorm2d(after)] if settings.batch_norm else []),
        activate(settings.activation),
    )
