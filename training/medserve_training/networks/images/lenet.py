"""LeNet-5."""

from torch import nn

from medserve_training.networks.images.image_network import ImageNetwork, flat_size
from medserve_training.networks.layers import activate, dense, initialize, pool
from medserve_training.recipes.network_settings import LeNet5


def lenet_5(settings: LeNet5, shape: tuple[int, int, int], outputs: int) -> ImageNetwork:
    """Builds LeNet-5: three convolutions of 5 x 5, two poolings, two dense layers (LeCun et al. 1998).

    The original takes 32 x 32 pixels; the first convolution pads 28 x 28 by 2, as the original's data was padded. In
    the second convolution all filters are connected to all maps, unlike in the original; the output is a softmax.

    Args:
        settings: Widths, activation, pooling, dropout, initialization.
        shape: Channels, height and width of an image.
        outputs: Number of logits.

    Raises:
        UserError: The image is too small.
    """
    first, second, third = settings.widths
    trunk = {
        "conv1": nn.Sequential(nn.Conv2d(shape[0], first, 5, padding=2), activate(settings.activation)),
        "pool1": pool(settings.pooling, 2),
        "conv2": nn.Sequential(nn.Conv2d(first, second, 5), activate(settings.activation)),
        "pool2": pool(settings.pooling, 2),
        "conv3": nn.Sequential(nn.Conv2d(second, third, 5), activate(settings.activation)),
    }
    flat = flat_size(trunk, shape, settings.name)
    neck = nn.Sequential(nn.Flatten(), *dense(flat, settings.dense, settings.activation, settings.dropout))
    network = ImageNetwork(trunk, neck, nn.Linear(settings.dense, outputs))
    initialize(network, settings.initialization)
    return network
