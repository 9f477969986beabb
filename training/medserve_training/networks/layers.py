"""Layers by the names that recipes give them."""

from collections.abc import Callable

from torch import Tensor, nn

from medserve_training.recipes.network_settings import Activation, Initialization, Pooling

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
_POOLINGS: dict[Pooling, type[nn.MaxPool2d | nn.AvgPool2d]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
_INITIALIZATIONS: dict[Initialization, Callable[[Tensor], Tensor]] = {
    "glorot-uniform": nn.init.xavier_uniform_,
    "glorot-normal": nn.init.xavier_normal_,
    "he-uniform": nn.init.kaiming_uniform_,
    "he-normal": nn.init.kaiming_normal_,
}


def activate(name: Activation) -> nn.Module:
    """A rectifier or one of its kin."""
    return _ACTIVATIONS[name]()


def pool(name: Pooling, size: int, stride: int | None = None) -> nn.Module:
    """A pooling over squares of `size` pixels."""
    return _POOLINGS[name](size, stride)


def convolution(
    before: int, after: int, size: int, activation: Activation, *, stride: int = 1, batch_norm: bool = True
) -> nn.Sequential:
    """A convolution that keeps height and width (but for a stride), batch norm and activation."""
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, padding=size // 2, bias=not batch_norm),
        *([nn.BatchNorm2d(after)] if batch_norm else []),
        activate(activation),
    )


def dense(before: int, after: int, activation: Activation, dropout: float) -> nn.Sequential:
    """A dense layer, its activation, and dropout where there is any."""
    return nn.Sequential(nn.Linear(before, after), activate(activation), *([nn.Dropout(dropout)] if dropout else []))


def initialize(network: nn.Module, name: Initialization) -> None:
    """Starts weights as Glorot & Bengio (2010) or He et al. (2015) do, for rectifiers; biases start at 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            _INITIALIZATIONS[name](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
