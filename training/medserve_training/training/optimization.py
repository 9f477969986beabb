"""Optimizers, learning rate schedules, penalties and the moving average of the weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from medserve_training.recipes.training_settings import Training

# Default of PyTorch's OneCycleLR, after Smith & Topin 2019.
_ONE_CYCLE_RISE = 0.3


def make_optimizer(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Creates the optimizer for all parameters of a model."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    rate = settings.learning_rate
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(model.parameters(), lr=rate)
        case "momentum":
            return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        case "adam":
            # Keras's epsilon; PyTorch's is 1e-8.
            return torch.optim.Adam(model.parameters(), lr=rate, eps=1e-7)
        case "adamw":
            groups: list[dict[str, Any]] = [
                {"params": weights, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ]
            return torch.optim.AdamW(groups, lr=rate)


def make_schedule(optimizer: torch.optim.Optimizer, settings: Training, steps: int) -> lr_scheduler.LRScheduler:
    """Creates the learning rate schedule over all `steps` of training, to be stepped after each of them."""
    if settings.schedule == "one-cycle":
        return lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps, pct_start=settings.warmup or _ONE_CYCLE_RISE
        )
    rise = round(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        if settings.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2

    return lr_scheduler.LambdaLR(optimizer, factor)


def penalty(model: nn.Module, settings: Training) -> Tensor | float:
    """Computes the L1 and L2 penalties on weights, without biases and scales; 0 if both are disabled."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    total: Tensor | float = 0.0
    if settings.l1:
        total = total + settings.l1 * sum(weight.abs().sum() for weight in weights)
    if settings.l2:
        total = total + settings.l2 * sum(weight.square().sum() for weight in weights)
    return total


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Creates an exponential moving average of a model's parameters and buffers; call `update_parameters` each step.

    The decay is at most (1 + t) / (10 + t) at step t, as in TensorFlow, so that the initial weights are forgotten.
    """

    def average(old: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
        if not old.is_floating_point():
            return new
        return torch.lerp(old, new.to(old.dtype), 1 - min(decay, (1 + int(steps)) / (10 + int(steps))))

    return AveragedModel(model, avg_fn=average, use_buffers=True)


def clip(parameters: Iterable[Tensor], largest: float | None) -> float:
    """Clips the gradients to a total L2 norm of `largest`, and returns their norm before clipping."""
    return float(nn.utils.clip_grad_norm_(parameters, math.inf if largest is None else largest))
