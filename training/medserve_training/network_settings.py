"""The tables `[network]` of a recipe: one for each network, told apart by `name`. Builders are in `networks/`."""

from typing import Literal, get_args, get_type_hints

from pydantic.dataclasses import dataclass

from medserve_training.strict_toml import STRICT, Count
from medserve_training.training_settings import Part

Activation = Literal["relu", "leaky-relu", "elu", "gelu", "tanh", "sigmoid"]
Pooling = Literal["max", "average"]
Initialization = Literal["glorot-uniform", "glorot-normal", "he-uniform", "he-normal"]


@dataclass(frozen=True, config=STRICT)
class BaselineCnn:
    """The articles' image network; every choice that they discuss is a parameter, and theirs is its default."""

    name: Literal["baseline-cnn"]
    widths: tuple[Count, Count, Count] = (32, 64, 64)
    kernel: Count = 3
    dense: Count = 64
    activation: Activation = "relu"
    pooling: Pooling = "max"
    batch_norm: bool = False
    dropout: Part = 0.0
    initialization: Initialization = "glorot-uniform"


@dataclass(frozen=True, config=STRICT)
class ResidualSe:
    """A small residual network with squeeze-and-excitation, pooled by mean and maximum."""

    name: Literal["residual-se"]
    widths: tuple[Count, Count, Count] = (16, 32, 64)
    activation: Activation = "relu"
    dropout: Part = 0.0
    initialization: Initialization = "he-normal"


@dataclass(frozen=True, config=STRICT)
class BaselineRiskCnn:
    """The articles' risk network."""

    name: Literal["baseline-risk-cnn"]


@dataclass(frozen=True, config=STRICT)
class ProjectionRiskCnn:
    """A convolution over learned projections of the covariates, whose order then means nothing.

    Attributes:
        name: Its name.
        encoding: Of the covariates: the transforms that the schema names, or piecewise linear between quantiles.
        bins: Of each number in the piecewise-linear encoding.
        channels: Of the sequence that the covariates are laid out to.
        positions: Its length.
        dropout: Of the convolution's output.
        effect: Of the covariates on the hazard over time: constant; constant plus a part that fades to 0 with the last
            interval; or free in each interval.
    """

    name: Literal["projection-risk-cnn"]
    encoding: Literal["clinical", "piecewise-linear"] = "clinical"
    bins: Count = 4
    channels: Count = 16
    positions: Count = 8
    dropout: Part = 0.0
    effect: Literal["constant", "fading", "free"] = "constant"


# A network that is added here is built in `networks/`.
ImageNetwork = BaselineCnn | ResidualSe
RiskNetwork = BaselineRiskCnn | ProjectionRiskCnn


def names(networks: object) -> list[str]:
    """The names of one of these unions."""
    return [get_args(get_type_hints(cls)["name"])[0] for cls in get_args(networks) or (networks,)]
