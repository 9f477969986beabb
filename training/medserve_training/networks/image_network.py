"""What every image network is made of."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medserve_training.errors import UserError


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
