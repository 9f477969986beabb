"""ResNet, for small images."""

from torch import nn

from medserve_training.networks.images.image_network import GlobalPool, ImageNetwork
from medserve_training.networks.images.residual import Residual
from medserve_training.networks.layers import convolution, initialize
from medserve_training.recipes.network_settings import ResNet

# Smallest image side for which the network starts with the original's stem.
_LARGE = 128


def resnet(settings: ResNet, shape: tuple[int, int, int], outputs: int) -> ImageNetwork:
    """Builds ResNet: a convolution, stages of residual blocks that halve the maps (except the first), global pooling.

    He et al. 2016, section 4.2, with a 1 x 1 convolution where a block changes the width. For images of at least 128
    pixels, it starts with their 7 x 7 convolution of stride 2 and a pooling (section 3.3).

    Args:
        settings: Widths of the stages, blocks per stage, activation, dropout, initialization.
        shape: Channels, height and width of an image.
        outputs: Number of logits.
    """
    first, kind = settings.widths[0], settings.activation
    large = min(shape[1:]) >= _LARGE
    trunk: dict[str, nn.Module] = {"conv1": convolution(shape[0], first, 7 if large else 3, kind, stride=1 + large)}
    if large:
        trunk["pool1"] = nn.MaxPool2d(3, 2, 1)
    before = first
    for stage, width in enumerate(settings.widths, 1):
        for index in range(settings.blocks):
            stride = 2 if stage > 1 and index == 0 else 1
            trunk[f"residual{stage}_{index + 1}"] = Residual(before, width, kind, stride)
            before = width
    network = ImageNetwork(trunk, GlobalPool(maximum=False, dropout=settings.dropout), nn.Linear(before, outputs))
    initialize(network, settings.initialization)
    return network
