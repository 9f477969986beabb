"""The residual block."""

from torch import Tensor, nn

from medserve_training.networks.layers import activate, convolution
from medserve_training.recipes.network_settings import Activation


class Residual(nn.Module):
    """Two convolutions added to their input (He et al. 2016): [n, before, h, w] to [n, after, h / stride, w / stride].

    If the shapes differ, the shortcut is a 1 x 1 convolution.
    """

    def __init__(self, before: int, after: int, activation: Activation, stride: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            convolution(before, after, 3, activation, stride=stride),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.activation = activate(activation)

    def forward(self, maps: Tensor) -> Tensor:
        """Adds the input before the last activation."""
        result: Tensor = self.activation(self.shortcut(maps) + self.layers(maps))
        return result
