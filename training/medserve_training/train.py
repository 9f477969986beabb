"""The training loop: one for every network, on CPU, GPU and several nodes."""

import copy
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from medserve_training.errors import UserError
from medserve_training.losses import LOSSES, Loss
from medserve_training.recipe import Training
from medserve_training.splits import Splits


@dataclass(frozen=True)
class Epoch:
    """The mean losses of one epoch; the training loss is the mean over its batches while the weights moved."""

    number: int
    train_loss: float
    validation_loss: float


def seed_everything(seed: int) -> None:
    """Makes what follows repeatable: the same seed on the same machine gives the same weights, bit for bit."""
    # CUDA's matrix products are only deterministic with this; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(seed)


def train(
    model: nn.Module,
    data: Splits[TensorDataset],
    settings: Training,
    fabric: Fabric,
    console: Console,
) -> list[Epoch]:
    """Trains a model in place.

    With early stopping the model ends with the weights of its best epoch, else with those of its last.

    Args:
        model: On any device; takes the first tensor of a batch.
        data: Rows of the model's input and of what the loss takes beside its output; the test split is not looked at.
        settings: Loss, epochs, batch size, learning rate, patience.
        fabric: Already launched.
        console: For the progress bar; a console that is no terminal shows none.

    Returns:
        The losses of each epoch.

    Raises:
        UserError: The loss is no number any more.
    """
    loss = LOSSES[settings.loss]
    # Keras's epsilon; PyTorch's is 1e-8.
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, eps=1e-7)
    wrapped, optimizer = fabric.setup(model, optimizer)
    batches, checks = fabric.setup_dataloaders(
        DataLoader(data.train, batch_size=settings.batch_size, shuffle=True),
        DataLoader(data.validation, batch_size=1024),
    )
    history: list[Epoch] = []
    best_weights = model.state_dict()
    with _progress(console, fabric) as progress:
        task = progress.add_task("training", total=settings.epochs * len(batches), losses="")
        for number in range(1, settings.epochs + 1):
            train_loss = _train_epoch(wrapped, loss, optimizer, progress.track(batches, task_id=task), fabric)
            epoch = Epoch(number, train_loss, _validate(wrapped, loss, checks, fabric))
            if not math.isfinite(epoch.train_loss + epoch.validation_loss):
                raise UserError(f"the loss is {epoch.train_loss} in epoch {number}; lower training.learning_rate")
            history.append(epoch)
            progress.update(task, losses=f"loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}")
            best = min(history, key=lambda earlier: earlier.validation_loss)
            if best is epoch:
                best_weights = copy.deepcopy(model.state_dict())
            if settings.patience is not None and number - best.number >= settings.patience:
                break
    if settings.patience is not None:
        model.load_state_dict(best_weights)
    return history


def _train_epoch(
    model: _FabricModule,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[list[Tensor]],
    fabric: Fabric,
) -> float:
    model.train()
    losses = []
    for inputs, *targets in batches:
        optimizer.zero_grad()
        value = loss(model(inputs), *targets)
        fabric.backward(value)
        optimizer.step()
        losses.append(value.detach())
    return _mean(torch.stack(losses), fabric)


@torch.no_grad()
def _validate(model: _FabricModule, loss: Loss, batches: Iterable[list[Tensor]], fabric: Fabric) -> float:
    model.eval()
    # Each batch counts by its rows.
    losses = [loss(model(inputs), *targets).repeat(len(inputs)) for inputs, *targets in batches]
    return _mean(torch.cat(losses), fabric)


def _mean(losses: Tensor, fabric: Fabric) -> float:
    return float(cast("Tensor", fabric.all_reduce(losses.mean(), reduce_op="mean")))


def _progress(console: Console, fabric: Fabric) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=console,
        disable=not (console.is_terminal and fabric.is_global_zero),
    )
