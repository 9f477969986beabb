"""AlexNet, for small images."""

from torch import nn

from medserve_training.networks.images.image_network import ImageNetwork, flat_size
from medserve_training.networks.layers import activate, convolution, dense, initialize, pool
from medserve_training.recipes.network_settings import AlexNet

# Smallest image side for which the first convolution has the original's stride and size.
_LARGE = 128


def alexnet(settings: AlexNet, shape: tuple[int, int, int], outputs: int) -> ImageNetwork:
    """Builds AlexNet: five convolutions, three overlapping poolings, three dense layers (Krizhevsky et al. 2012).

    For images of at least 128 pixels, the first convolution is the original's 11 x 11 with stride 4; below that, 5 x 5
    with stride 1. The numbers of channels are those of the single-column variant (Krizhevsky 2014): 1, 3, 6, 4, 4 times
    `width`. Local response normalization is omitted, as in later work.

    Args:
        settings: Width, dense width, activation, pooling, dropout, initialization.
        shape: Channels, height and width of an image.
        outputs: Number of logits.

    Raises:
        UserError: The image is too small.
    """
    width, kind = settings.width, settings.activation
    large = min(shape[1:]) >= _LARGE
    start = nn.Conv2d(shape[0], width, 11, stride=4, padding=2) if large else nn.Conv2d(shape[0], width, 5, padding=2)
    trunk = {
        "conv1": nn.Sequential(start, activate(kind)),
        "pool1": pool(settings.pooling, 3, 2),
        "conv2": convolution(width, 3 * width, 5 if large else 3, kind, batch_norm=False),
        "pool2": pool(settings.pooling, 3, 2),
        "conv3": convolution(3 * width, 6 * width, 3, kind, batch_norm=False),
        "conv4": convolution(6 * width, 4 * width, 3, kind, batch_norm=False),
        "conv5": convolution(4 * width, 4 * width, 3, kind, batch_norm=False),
        "pool3": pool(settings.pooling, 3, 2),
    }
    flat = flat_size(trunk, shape, settings.name)
    neck = nn.Sequential(
        nn.Flatten(),
        *dense(flat, settings.dense, kind, settings.dropout),
        *dense(settings.dense, settings.dense, kind, settings.dropout),
    )
    network = ImageNetwork(trunk, neck, nn.Linear(settings.dense, outputs))
    initialize(network, settings.initialization)
    return network
