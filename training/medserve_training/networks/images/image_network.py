"""What every image network is made of."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medserve_training.errors import UserError


class GlobalPool(nn.Module):
    """Maps [n, c, h, w] to each channel's mean, and its maximum after it where `maximum` says so: [n, c] or [n, 2c]."""

    def __init__(self, *, maximum: bool, dropout: float) -> None:
        super().__init__()
        self.maximum = maximum
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Pools over all places."""
        features = maps.mean(dim=(2, 3))
        if self.maximum:
            features = torch.cat([features, maps.amax(dim=(2, 3))], dim=1)
        result: Tensor = self.dropout(features)
        return result


class ImageNetwork(nn.Module):
    """Standardised pictures, float32 [n, channels, height, width], to logits, float32 [n, outputs].

    Attributes:
        trunk: Pictures to maps [n, c, h, w]; its layers have names.
        neck: Maps to the last features, [n, d].
        head: The last features to logits.
    """

    def __init__(self, trunk: Mapping[str, nn.Module], neck: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = nn.Sequential(OrderedDict(trunk))
        self.neck = neck
        self.head = head

    def forward(self, pictures: Tensor) -> Tensor:
        """Trunk, neck and head."""
        logits: Tensor = self.head(self.neck(self.trunk(pictures)))
        return logits

    def layers(self, pictures: Tensor) -> dict[str, Tensor]:
        """What each layer of the trunk gives, in order, by its name."""
        found = {}
        for name, layer in self.trunk.named_children():
            pictures = layer(pictures)
            found[name] = pictures
        return found

    def class_activation(self, maps: Tensor) -> Tensor:
        """How much each place adds to each logit (Zhou et al. 2016): [n, c, h, w] to [n, outputs, h, w].

        Summed over all places this is the logit without its bias. Needs a neck that pools globally: a channel's mean
        is shared out evenly, its maximum belongs to the place that has it.
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
    """Number of values that a trunk makes of one picture.

    Args:
        trunk: Its layers.
        shape: Channels, height and width of a picture.
        name: Of the network, for the error.

    Raises:
        UserError: The picture is too small for the trunk.
    """
    layers = nn.Sequential(*trunk.values()).eval()
    try:
        size = layers(torch.zeros(1, *shape)).numel()
    except RuntimeError as error:
        raise UserError(f"the network {name} needs larger pictures than {shape[1]} x {shape[2]}: {error}") from error
    layers.train()
    return int(size)
