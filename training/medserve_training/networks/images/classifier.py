"""Builds image networks from recipes, and the graphs from pixels to probabilities around them.

All processing between raw pixels and probabilities is an nn.Module, so that the trained and the exported graph agree.
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
    """Builds the network of a recipe.

    Args:
        settings: The recipe's table `[network]`.
        shape: Channels, height and width of an image.
        outputs: Number of logits.

    Raises:
        UserError: The image is too small.
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
    """Maps pixels [n, height, width, channels], uint8 or augmented floats, to logits, float32 [n, outputs].

    Args:
        network: The network on standardized images, [n, channels, height, width].
        mean: Mean of each channel, in pixel values, float [channels].
        deviation: Standard deviation of each channel, in pixel values, float [channels], above 0.
    """

    def __init__(self, network: ImageNetwork, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Standardizes the pixels and runs the network."""
        logits: Tensor = self.network(self.standardize(image))
        return logits

    def standardize(self, image: Tensor) -> Tensor:
        """Moves the channels to the front and standardizes each."""
        # In this order ONNX Runtime standardizes whole planes; with channels last it processes one pixel at a time,
        # which took a fifth of the model's total time.
        planes = image.permute(0, 3, 1, 2).float()
        return (planes - self.mean) / self.deviation

    @torch.no_grad()
    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Returns the last features of images, [n, d]."""
        self.eval()
        batches = torch.split(torch.from_numpy(pixels), 256)
        found = [self.network.neck(self.network.trunk(self.standardize(batch))) for batch in batches]
        return torch.cat(found).double().numpy()


class ImageGraph(nn.Module):
    """Maps pixels, uint8 [n, height, width, channels], to all outputs of the exported file, in the order of `names`.

    - `probabilities`, float32 [n, classes]: the mean over the members, calibrated.
    - `member_probabilities` [n, members, classes], for an ensemble: those of each member, with the same calibration.
    - `novelty` [n]: the mean over the members.
    - `class_activation` [n, classes, h, w], if the network pools globally: the mean over the members.
    - `feature_map.LAYER` [n, c, h, w]: of the first member.

    Args:
        members: Members of the ensemble, all with the same architecture.
        calibration: Maps probabilities to calibrated ones.
        novelty: For each member, maps its features to a score; empty to omit the output.
        feature_maps: Layers of the trunk whose outputs are exported.
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
        """Names of the outputs."""
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
    """Expands a single logit z to those of both labels, (-z/2, z/2), whose softmax is the sigmoid of z."""
    return torch.cat([-logits / 2, logits / 2], dim=1) if logits.shape[1] == 1 else logits


def _mean(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(dim=0)
