"""Network hyperparameters: the table `[network]` of a recipe, discriminated by `name`. `networks/` builds them."""

from typing import Literal, get_args, get_type_hints

from pydantic.dataclasses import dataclass

from medserve_training.recipes.strict_toml import STRICT, Count, Several
from medserve_training.recipes.training_settings import Share

Activation = Literal["relu", "leaky-relu", "elu", "gelu", "tanh", "sigmoid"]
Pooling = Literal["max", "average"]
Initialization = Literal["glorot-uniform", "glorot-normal", "he-uniform", "he-normal"]


@dataclass(frozen=True, config=STRICT)
class BaselineCnn:
    """The articles' image network; the design choices that they discuss are parameters, with theirs as defaults."""

    name: Literal["baseline-cnn"]
    widths: tuple[Count, Count, Count] = (32, 64, 64)
    kernel: Count = 3
    dense: Count = 64
    activation: Activation = "relu"
    pooling: Pooling = "max"
    batch_norm: bool = False
    dropout: Share = 0.0
    initialization: Initialization = "glorot-uniform"


@dataclass(frozen=True, config=STRICT)
class ResidualSe:
    """A small residual network with squeeze-and-excitation, pooled by mean and maximum."""

    name: Literal["residual-se"]
    widths: tuple[Count, Count, Count] = (16, 32, 64)
    activation: Activation = "relu"
    dropout: Share = 0.0
    initialization: Initialization = "he-normal"


@dataclass(frozen=True, config=STRICT)
class LeNet5:
    """LeNet-5 (LeCun et al. 1998): tanh and average pooling by default."""

    name: Literal["lenet-5"]
    widths: tuple[Count, Count, Count] = (6, 16, 120)
    dense: Count = 84
    activation: Activation = "tanh"
    pooling: Pooling = "average"
    dropout: Share = 0.0
    initialization: Initialization = "glorot-uniform"


@dataclass(frozen=True, config=STRICT)
class AlexNet:
    """AlexNet (Krizhevsky et al. 2012) for small images, with `width` instead of 64 channels in the first layer."""

    name: Literal["alexnet"]
    width: Count = 32
    dense: Count = 256
    activation: Activation = "relu"
    pooling: Pooling = "max"
    dropout: Share = 0.5
    initialization: Initialization = "he-normal"


@dataclass(frozen=True, config=STRICT)
class Vgg:
    """VGG (Simonyan & Zisserman 2015): stages of 3 x 3 convolutions, each ending with a pooling."""

    name: Literal["vgg"]
    widths: Several[Count] = (32, 64, 128)
    convolutions: Count = 2
    dense: Count = 256
    activation: Activation = "relu"
    pooling: Pooling = "max"
    batch_norm: bool = True
    dropout: Share = 0.5
    initialization: Initialization = "he-normal"


@dataclass(frozen=True, config=STRICT)
class ResNet:
    """ResNet (He et al. 2016, section 4.2): stages of residual blocks, which halve the maps except in the first."""

    name: Literal["resnet"]
    widths: Several[Count] = (16, 32, 64)
    blocks: Count = 3
    activation: Activation = "relu"
    dropout: Share = 0.0
    initialization: Initialization = "he-normal"


@dataclass(frozen=True, config=STRICT)
class BaselineRiskCnn:
    """The articles' risk network."""

    name: Literal["baseline-risk-cnn"]


@dataclass(frozen=True, config=STRICT)
class ProjectionRiskCnn:
    """A convolution over learned projections of the covariates, which is independent of their order.

    Attributes:
        name: Discriminator.
        encoding: Encoding of the covariates: the schema's transforms, or piecewise linear between quantiles.
        bins: Number of bins for each number in the piecewise-linear encoding.
        channels: Number of channels of the sequence to which the covariates are projected.
        positions: Length of the sequence.
        dropout: Dropout rate of the convolution's output.
        effect: Time course of the covariates' effect on the hazard: constant; constant plus a part that decays to
            1/e after two intervals; or unrestricted in each interval.
    """

    name: Literal["projection-risk-cnn"]
    encoding: Literal["clinical", "piecewise-linear"] = "clinical"
    bins: Count = 4
    channels: Count = 16
    positions: Count = 8
    dropout: Share = 0.0
    effect: Literal["constant", "fading", "free"] = "constant"


@dataclass(frozen=True, config=STRICT)
class UNet:
    """U-Net (Ronneberger et al. 2015) with "same" padding: two convolutions at each resolution, halved between them.

    Attributes:
        name: Discriminator.
        widths: Number of channels at each resolution, the highest first; their number is the depth.
        block: Two plain convolutions, or two with a residual connection around them (He et al. 2016).
        normalization: After each convolution: batch norm, or none. Instance and group norm are not offered: their
            output depends on the whole tile, so seams between tiles would become visible.
        activation: After each normalization.
        dropout: Dropout rate of whole channels at the lowest resolution.
        initialization: Of all weights.
    """

    name: Literal["u-net"]
    widths: Several[Count] = (16, 32, 64, 128)
    block: Literal["plain", "residual"] = "plain"
    normalization: Literal["batch", "none"] = "batch"
    activation: Activation = "relu"
    dropout: Share = 0.0
    initialization: Initialization = "he-normal"

    @property
    def stride(self) -> int:
        """The number of which an input's height and width must be multiples."""
        return int(2 ** (len(self.widths) - 1))


# Networks that are added here also need a builder in `networks/`.
ImageNetworkSettings = BaselineCnn | LeNet5 | AlexNet | Vgg | ResNet | ResidualSe
SegmentationNetworkSettings = UNet
RiskNetworkSettings = BaselineRiskCnn | ProjectionRiskCnn


def names(networks: object) -> list[str]:
    """Returns the network names in a union of settings."""
    return [get_args(get_type_hints(cls)["name"])[0] for cls in get_args(networks) or (networks,)]
