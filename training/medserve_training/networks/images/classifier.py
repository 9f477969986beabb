"""From a recipe's table to an image network, and from pixels to probabilities.

Everything between raw pixels and probabilities is a module here, so that what is trained is what is exported.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medserve_training.networks.images.alexnet import alexnet
from medserve_training.networks.images.baseline import baseline_cnn
from medserve_training.networks.images.image_network import GlobalPool, ImageNetwork
from medserve_training.networks.images.lenet import lenet_5
from medserve_training.networks.images.residual_se import residual_se
from medserve_training.networks.images.resnet import resnet
from medserve_training.networks.images.vgg import vgg
from medserve_training.recipes.network_settings import ImageNetworkSettings


def image_network(settings: ImageNetworkSettings, shape: tuple[int, int, int], outputs: int) -> ImageNetwork:
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
        case "lenet-5":
            return lenet_5(settings, shape, outputs)
        case "alexnet":
            return alexnet(settings, shape, outputs)
        case "vgg":
            return vgg(settings, shape, outputs)
        case "resnet":
            return resnet(settings, shape, outputs)
        case "residual-se":
            return residual_se(settings, shape, outputs)


class ImageClassifier(nn.Module):
    """Pixels [n, height, width, channels], uint8 or what augmentation made of them, to logits, float32 [n, outputs].

    Args:
        network: Takes standardised pictures, [n, channels, height, width].
        mean: Of each channel, in units of a pixel, float [channels].
        deviation: Standard deviation of each channel, float [channels], above 0.
    """

    def __init__(self, network: ImageNetwork, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
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

    @torch.no_grad()
    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The last features of pictures, [n, d]."""
        self.eval()
        batches = torch.split(torch.from_numpy(pixels), 256)
        found = [self.network.neck(self.network.trunk(self.standardize(batch))) for batch in batches]
        return torch.cat(found).double().numpy()


class ImageGraph(nn.Module):
    """Pixels, uint8 [n, height, width, channels], to everything that an exported file answers, in the order of `names`.

    - `probabilities`, float32 [n, classes]: the members' mean, calibrated.
    - `member_probabilities` [n, members, classes], of an ensemble: each member's, calibrated alike.
    - `novelty` [n]: the members' mean.
    - `class_activation` [n, classes, h, w], where the network pools over all places: the members' mean.
    - `feature_map.LAYER` [n, c, h, w]: of the first member.

    Args:
        members: Of the ensemble, of one network.
        calibration: Takes and gives probabilities.
        novelty: For each member, its features to a score; none for no such output.
        feature_maps: Layers of the trunk.
    """

    def __init__(
        self,
        members: Sequence[ImageClassifier],
        calibration: nn.Module | None = None,
        novelty: Sequence[nn.Module] = (),
        feature_maps: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.calibration = nn.Identity() if calibration is None else calibration
        self.novelty = nn.ModuleList(novelty)
        self.feature_maps = tuple(feature_maps)
        self.pools = isinstance(members[0].network.neck, GlobalPool)

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
        names = ["probabilities"]
        names += ["member_probabilities"] if len(self.members) > 1 else []
        names += ["novelty"] if len(self.novelty) else []
        names += ["class_activation"] if self.pools else []
        return names + [f"feature_map.{layer}" for layer in self.feature_maps]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Runs every member once."""
        members = [cast("ImageClassifier", member) for member in self.members]
        standardized = members[0].standardize(image)
        networks = [member.network for member in members]
        layers = [network.layers(standardized) for network in networks]
        maps = [list(found.values())[-1] for found in layers]
        features = [network.neck(last) for network, last in zip(networks, maps, strict=True)]
        logits = [network.head(last) for network, last in zip(networks, features, strict=True)]
        single = [torch.softmax(both_logits(scores), dim=1) for scores in logits]
        outputs = [self.calibration(_mean(single))]
        if len(networks) > 1:
            outputs.append(torch.stack([self.calibration(member) for member in single], dim=1))
        if len(self.novelty):
            outputs.append(_mean([score(last) for score, last in zip(self.novelty, features, strict=True)]))
        if self.pools:
            shares = [network.class_activation(last) for network, last in zip(networks, maps, strict=True)]
            outputs.append(_mean([both_logits(share) for share in shares]))
        return (*outputs, *(layers[0][layer] for layer in self.feature_maps))


def both_logits(logits: Tensor) -> Tensor:
    """Logits of both labels where a network gives the second alone: softmax of (-z/2, z/2) is the sigmoid of z."""
    return torch.cat([-logits / 2, logits / 2], dim=1) if logits.shape[1] == 1 else logits


def _mean(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(dim=0)
