"""A small residual network with squeeze-and-excitation, for images of about 28 x 28 pixels."""

import torch
from torch import Tensor, nn

from medserve_training.networks.images.image_network import GlobalPool, ImageNetwork
from medserve_training.networks.images.residual import Residual
from medserve_training.networks.layers import convolution, initialize
from medserve_training.recipes.network_settings import ResidualSe

# Reduction ratio of squeeze-and-excitation, small as in Hu et al. 2018 for small networks.
_SQUEEZE = 4


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): weights channels by the means of all, [n, width, h, w] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, width // _SQUEEZE, 1)
        self.excite = nn.Conv2d(width // _SQUEEZE, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Computes weights from 0 to 1 from the channel means by two 1 x 1 convolutions, and applies them."""
        mean = maps.mean(dim=(2, 3), keepdim=True)
        return maps * torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))


def residual_se(settings: ResidualSe, shape: tuple[int, int, int], outputs: int) -> ImageNetwork:
    """Builds the network: two convolutions, two stages of pooling and a residual block, SE block, global pooling.

    Args:
        settings: Widths, activation, dropout, initialization.
        shape: Channels, height and width of an image.
        outputs: Number of logits.
    """
    first, second, third = settings.widths
    trunk = {
        "conv1": convolution(shape[0], first, 3, settings.activation),
        "conv2": convolution(first, second, 3, settings.activation),
        "pool1": nn.MaxPool2d(2),
        "residual1": Residual(second, second, settings.activation),
        "conv3": convolution(second, third, 3, settings.activation),
        "pool2": nn.MaxPool2d(2),
        "residual2": Residual(third, third, settings.activation),
        "excite": SqueezeExcite(third),
    }
    network = ImageNetwork(trunk, GlobalPool(maximum=True, dropout=settings.dropout), nn.Linear(2 * third, outputs))
    initialize(network, settings.initialization)
    return network
