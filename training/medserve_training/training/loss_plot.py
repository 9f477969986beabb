"""Plot of the training progress."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medserve_training.training.train import Epoch


def plot_loss(history: Sequence[Epoch], path: Path) -> None:
    """Plots losses and gradient norms by epoch, with one line for each member of an ensemble."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=[2, 1], sharex=True)
    for member in sorted({epoch.member for epoch in history}):
        epochs = [epoch for epoch in history if epoch.member == member]
        numbers = [epoch.number for epoch in epochs]
        train, validation, mean, largest = (
            "training (mean over the epoch)",
            "validation (after it)",
            "mean",
            "largest",
        )
        if member > 0:  # only the first member is in the legend
            train = validation = mean = largest = "_"
        upper.plot(numbers, [epoch.train_loss for epoch in epochs], "C0.-", label=train)
        upper.plot(numbers, [epoch.validation_loss for epoch in epochs], "C1.-", label=validation)
        lower.plot(numbers, [epoch.gradient_norm for epoch in epochs], "C2.-", label=mean)
        lower.plot(numbers, [epoch.largest_gradient_norm for epoch in epochs], "C3.:", label=largest)
    upper.set(ylabel="loss", title="Loss")
    lower.set(xlabel="epoch", ylabel="gradient norm", yscale="log")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
