"""Layers, by their names in recipes."""

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
    """Returns the activation of a name."""
    return _ACTIVATIONS[name]()


def pool(name: Pooling, size: int, stride: int | None = None) -> nn.Module:
    """Returns a pooling layer with a window of `size` x `size` pixels."""
    return _POOLINGS[name](size, stride)


def convolution(
    before: int, after: int, size: int, activation: Activation, *, stride: int = 1, batch_norm: bool = True
) -> nn.Sequential:
    """Returns a convolution with "same" padding (except for the stride), batch norm and activation."""
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, padding=size // 2, bias=not batch_norm),
        *([nn.BatchNorm2d(after)] if batch_norm else []),
        activate(activation),
    )


def dense(before: int, after: int, activation: Activation, dropout: float) -> nn.Sequential:
    """Returns a dense layer with its activation, and dropout if it is not 0."""
    return nn.Sequential(nn.Linear(before, after), activate(activation), *([nn.Dropout(dropout)] if dropout else []))


def initialize(network: nn.Module, name: Initialization) -> None:
    """Initializes weights as in Glorot & Bengio (2010) or He et al. (2015), with ReLU's gain, and biases with 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            _INITIALIZATIONS[name](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
