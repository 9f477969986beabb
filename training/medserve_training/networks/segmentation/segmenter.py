"""Segmentation networks with their preparation, and the graph from pixels to the outputs of the exported file."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medserve_training.networks.segmentation.u_net import UNet
from medserve_training.recipes.network_settings import UNet as Settings

# Probability from which a pixel may belong to an object.
_POSSIBLE = 0.3
_ALMOST_0 = 1e-3


class Segmenter(nn.Module):
    """Maps pixels [n, height, width, channels], uint8 or augmented floats, to logits, float32 [n, outputs, h, w].

    Args:
        settings: The recipe's table `[network]`.
        channels: Number of channels of a pixel.
        outputs: Number of output maps.
    """

    def __init__(self, settings: Settings, channels: int, outputs: int) -> None:
        super().__init__()
        self.network = UNet(settings, 2 * channels, outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Prepares the pixels and runs the network."""
        logits: Tensor = self.network(self.prepare(image))
        return logits

    @staticmethod
    def prepare(image: Tensor) -> Tensor:
        """Returns each channel on a linear and on a logarithmic scale, both about from -1 to 1, [n, 2c, h, w].

        On the logarithmic scale, the contrast of an object does not depend on the exposure, so that no statistics of
        the image are needed, which a tile of it does not have.
        """
        planes = image.permute(0, 3, 1, 2).float()
        return torch.cat([planes / 127.5 - 1, torch.log1p(planes) * (2 / math.log(256)) - 1], dim=1)


class SegmentationGraph(nn.Module):
    """Maps pixels, uint8 [n, h, w, channels], to all outputs of the exported file, in the order of `names`.

    - `probabilities`, float32 [n, labels, h, w]: the mean over the members.
    - `distance` [n, labels, h, w], if the members have it: the mean over the members.
    - `disagreement` [n, labels, h, w], for an ensemble: the standard deviation over the members' probabilities.
    - `novelty` [n]: see `novelty`.

    Args:
        members: Members of the ensemble, all with the same architecture.
        labels: Number of labels.
    """

    def __init__(self, members: Sequence[Segmenter], labels: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.labels = labels
        self.separates = members[0].network.head.out_channels > labels

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        names = ["probabilities"]
        names += ["distance"] if self.separates else []
        names += ["disagreement"] if len(self.members) > 1 else []
        return [*names, "novelty"]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Runs every member once."""
        members = [cast("Segmenter", member) for member in self.members]
        planes = members[0].prepare(image)
        found = [torch.sigmoid(member.network(planes)) for member in members]
        mean = sum(found[1:], start=found[0]) / len(found)
        outputs = [mean[:, : self.labels]]
        if self.separates:
            outputs.append(mean[:, self.labels :])
        if len(found) > 1:
            squares = [(one[:, : self.labels] - outputs[0]).square() for one in found]
            outputs.append((sum(squares[1:], start=squares[0]) / len(found)).sqrt())
        return (*outputs, novelty(outputs[0]))


def novelty(probabilities: Tensor) -> Tensor:
    """Returns how uncertain the pixels of possible objects are, [n]: 1 minus the mean of |2 p - 1| where p >= 0.3.

    Without such pixels it is 0. On images unlike the training data, probabilities are rarely close to 0 or 1. On
    validation, this detects failures better than the distance of features from those of the training data.

    Args:
        probabilities: [n, labels, h, w].
    """
    inside = (probabilities >= _POSSIBLE).float()
    certainty = ((2 * probabilities - 1).abs() * inside).sum(dim=(1, 2, 3))
    return 1 - (certainty + _ALMOST_0) / (inside.sum(dim=(1, 2, 3)) + _ALMOST_0)
