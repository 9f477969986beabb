"""VGG."""

import itertools

from torch import nn

from medserve_training.networks.images.image_network import ImageNetwork, flat_size
from medserve_training.networks.layers import convolution, dense, initialize, pool
from medserve_training.recipes.network_settings import Vgg


def vgg(settings: Vgg, shape: tuple[int, int, int], outputs: int) -> ImageNetwork:
    """Builds VGG: stages of 3 x 3 convolutions and a pooling, and two dense layers (Simonyan & Zisserman 2015).

    Args:
        settings: Widths of the stages, convolutions per stage, dense width, activation, pooling, batch norm, dropout,
            initialization.
        shape: Channels, height and width of an image.
        outputs: Number of logits.

    Raises:
        UserError: The image is too small for the number of poolings.
    """
    trunk: dict[str, nn.Module] = {}
    for stage, (before, width) in enumerate(itertools.pairwise([shape[0], *settings.widths]), 1):
        for index in range(settings.convolutions):
            trunk[f"conv{stage}_{index + 1}"] = convolution(
                width if index else before, width, 3, settings.activation, batch_norm=settings.batch_norm
            )
        trunk[f"pool{stage}"] = pool(settings.pooling, 2)
    flat = flat_size(trunk, shape, settings.name)
    neck = nn.Sequential(nn.Flatten(), *dense(flat, settings.dense, settings.activation, settings.dropout))
    network = ImageNetwork(trunk, neck, nn.Linear(settings.dense, outputs))
    initialize(network, settings.initialization)
    return network
