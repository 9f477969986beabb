"""Report of a training run: recipe, epochs, figures and loss plot."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medserve_training.recipes.recipe import Recipe
from medserve_training.training.loss_plot import plot_loss
from medserve_training.training.train import Epoch


def write_report(recipe: Recipe, history: Sequence[Epoch], figures: Mapping[str, float], folder: Path) -> None:
    """Writes metrics.json and loss.png."""
    content = {
        "recipe": dataclasses.asdict(recipe),
        "epochs": [dataclasses.asdict(epoch) for epoch in history],
        "figures": dict(figures),
    }
    (folder / "metrics.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    plot_loss(history, folder / "loss.png")
