"""From a recipe's table to an image network, and from pixels to probabilities.

Everything between raw pixels and probabilities is a module here, so that what is trained is what is exported.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medserve_training.network_settings import ImageNetwork as ImageSettings
from medserve_training.networks.baseline import baseline_cnn
from medserve_training.networks.image_network import ImageNetwork


def image_network(settings: ImageSettings, shape: tuple[int, int, int], outputs: int) -> ImageNetwork:
    """The network of a recipe's table.

    Args:
        settings: The table.
        shape: Channels, height and width of a picture.
        outputs: Number of logits.

    Raises:
        UserError: The picture is too small.
    """
    match settings.name:
        case "baseline-cnn":
            return baseline_cnn(settings, shape, outputs)


class ImageClassifier(nn.Module):
    """Pixels [n, height, width, channels], uint8 or what augmentation made of them, to logits, float32 [n, outputs].

    Args:
        network: Takes standardised pictures, [n, channels, height, width].
        mean: Of each channel, in units of a pixel, float [channels].
        deviation: Standard deviation of each channel, float [channels], above 0.
    """

    def __init__(self, network: nn.Module, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Standardises and runs the network."""
        logits: Tensor = self.network(self.standardize(image))
        return logits

    def standardize(self, image: Tensor) -> Tensor:
        """Moves the channels to the front and standardises each."""
        # In this order ONNX Runtime standardises a plane at a time; with the channels last it takes one pixel at a
        # time, which was a fifth of the whole model's time.
        planes = image.permute(0, 3, 1, 2).float()
        return (planes - self.mean) / self.deviation


class ImageProbabilities(nn.Module):
    """Pixels, uint8 [n, height, width, channels], to probabilities, float32 [n, classes]: the exported graph.

    Args:
        members: Of the ensemble, whose probabilities are averaged.
    """

    def __init__(self, *members: ImageClassifier) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        """Softmax over each member's logits, and their mean."""
        probabilities = [torch.softmax(both_logits(member(image)), dim=1) for member in self.members]
        return probabilities[0] if len(probabilities) == 1 else torch.stack(probabilities, dim=1).mean(dim=1)


def both_logits(logits: Tensor) -> Tensor:
    """Logits of both labels where a network gives that of the second alone: softmax over (0, z) is the sigmoid of z."""
    return functional.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits
