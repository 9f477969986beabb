"""The U-Net family: encoder and decoder with skip connections."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from medserve_training.networks.layers import activate, convolution, initialize
from medserve_training.recipes.network_settings import UNet as Settings


class UNet(nn.Module):
    """Maps planes, float32 [n, channels, h, w], to maps, float32 [n, outputs, h, w].

    Height and width must be multiples of `settings.stride`.

    Args:
        settings: Widths, blocks and normalization.
        channels: Number of input channels.
        outputs: Number of output channels.
    """

    def __init__(self, settings: Settings, channels: int, outputs: int) -> None:
        super().__init__()
        widths = settings.widths
        self.encoder = nn.ModuleList(
            [_block(before, after, settings) for before, after in pairwise((channels, *widths))]
        )
        self.dropout = nn.Dropout2d(settings.dropout)
        self.raise_resolution = nn.ModuleList([nn.Conv2d(below, width, 1) for width, below in pairwise(widths)])
        self.decoder = nn.ModuleList([_block(2 * width, width, settings) for width in widths[:-1]])
        self.head = nn.Conv2d(widths[0], outputs, 1)
        initialize(self, settings.initialization)

    def encode(self, planes: Tensor) -> list[Tensor]:
        """Returns the maps at each resolution, the highest first."""
        maps = []
        for level, block in enumerate(self.encoder):
            planes = block(planes if level == 0 else functional.max_pool2d(planes, 2))
            maps.append(planes)
        return maps

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Returns the output for the encoder's maps."""
        planes = self.dropout(maps[-1])
        for level in reversed(range(len(self.decoder))):
            # The convolution is computed before the interpolation, with which it commutes, on a quarter of the pixels.
            raised = functional.interpolate(self.raise_resolution[level](planes), scale_factor=2.0, mode="nearest")
            planes = self.decoder[level](torch.cat([maps[level], raised], dim=1))
        result: Tensor = self.head(planes)
        return result

    def forward(self, planes: Tensor) -> Tensor:
        """Runs encoder and decoder."""
        return self.decode(self.encode(planes))


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, settings: Settings) -> None:
        super().__init__()
        batch_norm = settings.normalization == "batch"
        self.first = convolution(before, after, 3, settings.activation, batch_norm=batch_norm)
        self.second = nn.Sequential(
            nn.Conv2d(after, after, 3, padding=1, bias=not batch_norm),
            *([nn.BatchNorm2d(after)] if batch_norm else []),
        )
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        self.activation = activate(settings.activation)

    def forward(self, planes: Tensor) -> Tensor:
        result: Tensor = self.activation(self.second(self.first(planes)) + self.shortcut(planes))
        return result


def _block(before: int, after: int, settings: Settings) -> nn.Module:
    if settings.block == "residual":
        return _Residual(before, after, settings)
    batch_norm = settings.normalization == "batch"
    return nn.Sequential(
        convolution(before, after, 3, settings.activation, batch_norm=batch_norm),
        convolution(after, after, 3, settings.activation, batch_norm=batch_norm),
    )
