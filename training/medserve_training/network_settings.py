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


# A network that is added here is built in `networks/`.
ImageNetwork = BaselineCnn | ResidualSe
RiskNetwork = BaselineRiskCnn


def names(networks: object) -> list[str]:
    """The names of one of these unions."""
    return [get_args(get_type_hints(cls)["name"])[0] for cls in get_args(networks) or (networks,)]
