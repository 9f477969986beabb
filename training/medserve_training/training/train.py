"""The training loop of all networks, on CPU, GPU and multiple nodes."""

import copy
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from medserve_training.data.splits import Splits
from medserve_training.errors import Diverged
from medserve_training.recipes.training_settings import Training
from medserve_training.training.losses import LOSSES, Loss, class_weights, smoothed
from medserve_training.training.optimization import clip, make_optimizer, make_schedule, moving_average, penalty

Model = TypeVar("Model", bound=nn.Module)
Change = Callable[[Tensor], Tensor]
Rows = Dataset[tuple[Tensor, ...]]
# Difference between the seeds of consecutive ensemble members.
_SEED_STEP = 1000


@dataclass(frozen=True)
class Epoch:
    """The losses and gradient norms of one epoch.

    The training loss is the mean over the rows during the epoch, including penalties, label smoothing and class
    weights; the validation loss excludes them. The gradient norm is the L2 norm of all gradients before clipping, as
    mean and maximum over the steps: values near 0 indicate vanishing gradients, unbounded growth exploding gradients.
    """

    number: int
    train_loss: float
    validation_loss: float
    gradient_norm: float
    largest_gradient_norm: float
    learning_rate: float
    member: int = 0


def seed_everything(seed: int) -> None:
    """Makes training reproducible: the same seed on the same machine gives bit-identical weights."""
    # cuBLAS is only deterministic with this setting, which is read when CUDA is initialized.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    # No code here reads uninitialized memory, and filling it took 10 % of the training time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # missing in its stubs
    torch.manual_seed(seed)


def tensors(*arrays: NDArray[np.generic] | Tensor) -> TensorDataset:
    """Wraps arrays in a data set for `train`."""
    return TensorDataset(*(torch.as_tensor(array) for array in arrays))


def train_members(
    build: Callable[[], Model],
    data: Splits[TensorDataset] | Splits[Rows],
    settings: Training,
    seed: int,
    fabric: Fabric,
    console: Console,
    change: Change | None = None,
    loss: Loss | None = None,
) -> tuple[list[Model], list[Epoch]]:
    """Trains an ensemble of `settings.members` models, each with its own seed.

    Args:
        build: Creates a model with random initial weights.
        data: As for `train`.
        settings: As for `train`.
        seed: Seed of the first member.
        fabric: A launched Fabric.
        console: Receives the progress bar.
        change: As for `train`.
        loss: As for `train`.

    Returns:
        The models, on the CPU, and the epochs of all of them.
    """
    models, history = [], []
    for member in range(settings.members):
        seed_everything(seed + _SEED_STEP * member)
        model = build()
        history += train(model, data, settings, fabric, console, change, loss, member)
        models.append(model.cpu())
    return models, history


def train(
    model: nn.Module,
    data: Splits[TensorDataset] | Splits[Rows],
    settings: Training,
    fabric: Fabric,
    console: Console,
    change: Change | None = None,
    loss: Loss | None = None,
    member: int = 0,
) -> list[Epoch]:
    """Trains a model in place.

    With early stopping, the final weights are those of the best epoch, otherwise of the last epoch.

    Args:
        model: The model, on any device, which takes the first tensor of a batch.
        data: Rows of the model's input and the targets of the loss; the test split is not used.
        settings: Training hyperparameters.
        fabric: A launched Fabric.
        console: Receives the progress bar, if it is a terminal.
        change: Transform of a batch of training input, e.g. augmentation.
        loss: Loss to use instead of the one that the settings name.
        member: Index of the model in an ensemble.

    Returns:
        The losses of each epoch.

    Raises:
        Diverged: The loss became NaN or infinite.
    """
    optimizer: torch.optim.Optimizer = make_optimizer(model, settings)
    wrapped, optimizer = fabric.setup(model, optimizer)
    batches, checks = fabric.setup_dataloaders(
        _training_batches(data.train, settings),
        DataLoader(data.validation, batch_size=1024 if loss is None else settings.batch_size),
    )
    steps = settings.epochs * len(batches)
    average = moving_average(model, settings.weight_average) if settings.weight_average else None
    step = _Step(
        wrapped,
        optimizer,
        make_schedule(optimizer, settings, steps),
        average,
        loss or smoothed(settings.loss, settings.label_smoothing),
        _weights(data.train, settings, fabric),
        settings,
        change,
    )
    evaluated = model if average is None else average.module
    history: list[Epoch] = []
    best_weights = model.state_dict()
    with _progress(console, fabric) as progress:
        task = progress.add_task(_title(member, settings), total=steps, losses="")
        for number in range(1, settings.epochs + 1):
            rate = optimizer.param_groups[0]["lr"]
            train_loss, norms = _train_epoch(step, progress.track(batches, task_id=task), fabric)
            validation_loss = _validate(evaluated, loss or LOSSES[settings.loss], checks, fabric)
            epoch = Epoch(number, train_loss, validation_loss, sum(norms) / len(norms), max(norms), rate, member)
            if not math.isfinite(epoch.train_loss + epoch.validation_loss):
                raise Diverged(f"the loss is {epoch.train_loss} in epoch {number}; lower training.learning_rate")
            history.append(epoch)
            progress.update(task, losses=f"loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}")
            best = min(history, key=lambda earlier: earlier.validation_loss)
            if best is epoch:
                best_weights = copy.deepcopy(evaluated.state_dict())
            if settings.patience is not None and number - best.number >= settings.patience:
                break
    model.load_state_dict(evaluated.state_dict() if settings.patience is None else best_weights)
    return history


@dataclass(frozen=True)
class _Step:
    """The objects that a training step uses."""

    model: _FabricModule
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: AveragedModel | None
    loss: Loss
    weights: Tensor | None
    settings: Training
    change: Change | None


def _training_batches(rows: TensorDataset | Rows, settings: Training) -> DataLoader[tuple[Tensor, ...]]:
    if settings.balance != "sampling" or not isinstance(rows, TensorDataset):
        return DataLoader(rows, batch_size=settings.batch_size, shuffle=True)
    labels = rows.tensors[1].long()
    chances = class_weights(labels)[labels].tolist()
    return DataLoader(rows, batch_size=settings.batch_size, sampler=WeightedRandomSampler(chances, len(labels)))


def _weights(rows: TensorDataset | Rows, settings: Training, fabric: Fabric) -> Tensor | None:
    if settings.balance != "class-weights" or not isinstance(rows, TensorDataset):
        return None
    return fabric.to_device(class_weights(rows.tensors[1]))


def _train_epoch(step: _Step, batches: Iterable[list[Tensor]], fabric: Fabric) -> tuple[float, list[float]]:
    """Trains one epoch; returns the mean loss over the rows, and the gradient norm of each step."""
    step.model.train()
    losses, norms = [], []
    for inputs, *targets in batches:
        step.optimizer.zero_grad()
        output = step.model(inputs if step.change is None else step.change(inputs))
        rows = step.loss(output, *targets)
        if step.weights is not None:
            rows = rows * step.weights[targets[0].long()]
        value = rows.mean() + penalty(step.model, step.settings)
        fabric.backward(value)
        norms.append(clip(step.model.parameters(), step.settings.gradient_clip))
        step.optimizer.step()
        step.schedule.step()
        if step.average is not None:
            step.average.update_parameters(step.model.module)
        losses.append(value.detach().repeat(len(inputs)))
    return _mean(torch.cat(losses), fabric), norms


@torch.no_grad()
def _validate(model: nn.Module, loss: Loss, batches: Iterable[list[Tensor]], fabric: Fabric) -> float:
    model.eval()
    return _mean(torch.cat([loss(model(inputs), *targets) for inputs, *targets in batches]), fabric)


def _mean(losses: Tensor, fabric: Fabric) -> float:
    return float(cast("Tensor", fabric.all_reduce(losses.mean(), reduce_op="mean")))


def _title(member: int, settings: Training) -> str:
    return "training" if settings.members == 1 else f"training {member + 1} of {settings.members}"


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
