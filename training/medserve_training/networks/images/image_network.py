"""The common structure of image networks: trunk, neck and head."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medserve_training.errors import UserError


class GlobalPool(nn.Module):
    """Pools maps [n, c, h, w] to each channel's mean, and its maximum if `maximum` is set: [n, c] or [n, 2c]."""

    def __init__(self, *, maximum: bool, dropout: float) -> None:
        super().__init__()
        self.maximum = maximum
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Pools over all positions."""
        features = maps.mean(dim=(2, 3))
        if self.maximum:
            features = torch.cat([features, maps.amax(dim=(2, 3))], dim=1)
        result: Tensor = self.dropout(features)
        return result


class ImageNetwork(nn.Module):
    """Maps standardized images, float32 [n, channels, height, width], to logits, float32 [n, outputs].

    Attributes:
        trunk: Maps images to feature maps [n, c, h, w]; its layers are named.
        neck: Maps feature maps to the last features, [n, d].
        head: Maps the last features to logits.
    """

    def __init__(self, trunk: Mapping[str, nn.Module], neck: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = nn.Sequential(OrderedDict(trunk))
        self.neck = neck
        self.head = head

    def forward(self, pictures: Tensor) -> Tensor:
        """Runs trunk, neck and head."""
        logits: Tensor = self.head(self.neck(self.trunk(pictures)))
        return logits

    def layers(self, pictures: Tensor) -> dict[str, Tensor]:
        """Returns the output of each layer of the trunk, in order, by name."""
        found = {}
        for name, layer in self.trunk.named_children():
            pictures = layer(pictures)
            found[name] = pictures
        return found

    def class_activation(self, maps: Tensor) -> Tensor:
        """Computes class activation maps (Zhou et al. 2016): [n, c, h, w] to [n, outputs, h, w].

        The values are the contribution of each position to each logit, and sum to the logit without its bias. Requires
        a neck that pools globally: a channel's mean is attributed evenly, its maximum to the position that has it.
        """
        channels = maps.shape[1]
        activation = torch.einsum("oc,nchw->nohw", self.head.weight[:, :channels], maps) / maps[0, 0].numel()
        if isinstance(self.neck, GlobalPool) and self.neck.maximum:
            largest = (maps == maps.amax(dim=(2, 3), keepdim=True)).float()
            peaks = maps * largest / largest.sum(dim=(2, 3), keepdim=True)
            activation = activation + torch.einsum("oc,nchw->nohw", self.head.weight[:, channels:], peaks)
        return activation


@torch.no_grad()
def flat_size(trunk: Mapping[str, nn.Module], shape: tuple[int, int, int], name: str) -> int:
    """Returns the number of values in the trunk's output for one image.

    Args:
        trunk: The layers.
        shape: Channels, height and width of an image.
        name: Name of the network, for the error message.

    Raises:
        UserError: The image is too small for the trunk.
    """
    layers = nn.Sequential(*trunk.values()).eval()
    try:
        size = layers(torch.zeros(1, *shape)).numel()
    except RuntimeError as error:
        raise UserError(f"the network {name} needs larger images than {shape[1]} x {shape[2]}: {error}") from error
    layers.train()
    return int(size)
