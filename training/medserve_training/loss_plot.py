"""The picture of how training went."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medserve_training.train import Epoch


def plot_loss(history: Sequence[Epoch], path: Path) -> None:
    """Writes the loss of training and validation by epoch."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    numbers = [epoch.number for epoch in history]
    axes.plot(numbers, [epoch.train_loss for epoch in history], marker="o", label="training (mean over the epoch)")
    axes.plot(numbers, [epoch.validation_loss for epoch in history], marker="o", label="validation (after the epoch)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="loss", title="Loss")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
