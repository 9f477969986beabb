"""Trains a recipe with several seeds, to measure the variation of its figures."""

import json
from collections.abc import Sequence

import numpy as np
from lightning_fabric import Fabric
from rich.console import Console

from medserve_training.export.origin import Source
from medserve_training.recipes.recipe import load_recipe
from medserve_training.run_paths import RunPaths
from medserve_training.staging import require_writable, staged
from medserve_training.studies.evaluate import evaluate
from medserve_training.training.fit import check_data, fit


def repeat(
    recipe: str, overrides: Sequence[str], seeds: int, paths: RunPaths, fabric: Fabric, console: Console
) -> dict[str, tuple[float, float]]:
    """Fits a recipe with the seeds 1, 2, ... and, once all models are trained, evaluates each once.

    The data of all seeds is checked first. Seeds whose model exists are not trained again, so that an interrupted run
    can be resumed.

    Args:
        recipe: As for `load_recipe`.
        overrides: As for `load_recipe`.
        seeds: Number of seeds.
        paths: The data; `model` is the folder of the models, `report` the folder of the reports and seeds.json.
        fabric: A launched Fabric.
        console: Receives progress.

    Returns:
        Mean and standard deviation of every figure over the seeds.
    """
    for folder in (paths.model, paths.report):
        require_writable(folder)
    found: list[dict[str, float]] = []
    models = {seed: paths.model / f"seed-{seed}" / "model.onnx" for seed in range(1, seeds + 1)}
    chosen = {seed: load_recipe(recipe, [*overrides, f"seed={seed}"]) for seed in models if not models[seed].is_file()}
    for one in chosen.values():
        check_data(one, paths.data_dir)
    for seed, one in chosen.items():
        fit(one, RunPaths(paths.data_dir, models[seed], paths.report / f"seed-{seed}"), fabric, console)
        console.print(f"seed {seed} of {seeds} is trained")
    for seed, path in models.items():
        spec = load_recipe(recipe, overrides).data.spec
        found.append(evaluate(Source(path, spec, recipe, paths.data_dir), paths.report / f"seed-{seed}", None))
    common = [name for name in found[0] if all(name in figures for figures in found)]
    values = {name: np.array([figures[name] for figures in found]) for name in common}
    spreads = {name: (float(array.mean()), float(array.std(ddof=min(1, seeds - 1)))) for name, array in values.items()}
    content = {"seeds": seeds, "figures": {name: array.tolist() for name, array in values.items()}}
    with staged() as stage:
        text = json.dumps(content, indent=1) + "\n"
        (stage.folder(paths.report) / "seeds.json").write_text(text, encoding="utf-8")
    return spreads
