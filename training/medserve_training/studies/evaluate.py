"""Evaluates a model file on its test split, which no other command uses."""

import json
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card import write_card
from medserve_training.data.image_data import load_pictures
from medserve_training.data.splits import Images, Patients, Splits
from medserve_training.export.checksums import update_checksum
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import SPLITS, figures
from medserve_training.export.onnx_file import save
from medserve_training.export.origin import Source
from medserve_training.export.remeasure import Measured, measure_again
from medserve_training.export.segmentation.predictions import write_predictions
from medserve_training.plots.classification import plot_classification
from medserve_training.plots.risk import plot_risk
from medserve_training.plots.segmentation import plot_segmentation
from medserve_training.recipes.recipe import ImageTask
from medserve_training.recipes.segmentation_settings import SegmentationTask
from medserve_training.staging import require_writable, staged
from medserve_training.studies.crossval_report import read_evaluations

Pixels = NDArray[np.uint8]


def evaluate(source: Source, report: Path, unfamiliar: str | None, crossval: Path | None = None) -> dict[str, float]:
    """Evaluates a model on its test split, and writes the figures into its manifest, its card, and a report.

    The card, card.md and card.html, is written to the folder of the model file.

    Args:
        source: The model file, which is replaced, and its data.
        report: Output folder of evaluation.json, plots, and predictions.npz with the output for validation and test:
            probabilities and labels, survival, times and events, or, with predictions.csv, the objects found.
        unfamiliar: Data spec of images of another kind, to test the novelty score with.
        crossval: The risk.json of cross-validation with the model's recipe, whose figures are added to the manifest.

    Returns:
        The figures, by name.

    Raises:
        UserError: A file is missing or corrupt, or the training split differs from the one the manifest names.
    """
    for folder in (source.path.parent, report):
        require_writable(folder)
    measured = measure_again(source, SPLITS)
    if crossval is not None:
        found_before = [entry for entry in measured.fresh.evaluations if entry.split in SPLITS]
        del measured.fresh.evaluations[:]
        measured.fresh.evaluations.extend([*found_before, *read_evaluations(crossval, measured.recipe)])
    alarmed = dict[str, float]()
    if measured.fresh.image_classification.HasField("novelty") and isinstance(measured.recipe.task, ImageTask):
        images = cast("Splits[Images]", measured.data)
        others = None if unfamiliar is None else load_pictures(unfamiliar, measured.recipe.task, source.data_dir)
        alarmed = alarms(source.path, measured.fresh, images.test.pixels, others)
    found = figures(measured.fresh) | alarmed
    with staged() as stage:
        folder = stage.folder(report)
        match measured.recipe.task:
            case ImageTask():
                _report_images(measured, cast("Splits[Images]", measured.data), folder)
            case SegmentationTask() as task:
                plot_segmentation(measured.segmented, measured.fresh, folder)
                write_predictions(measured.segmented, task.labels, folder)
            case _:
                _report_patients(measured, cast("Splits[Patients]", measured.data), folder)
        (folder / "evaluation.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        file = save(onnx.load(source.path), measured.fresh, source.path, stage)
        write_card(file, measured, alarmed)
        update_checksum(source.path, file.read_bytes(), stage)
    return found


def alarms(path: Path, manifest: pb.Manifest, test: Pixels, others: Pixels | None) -> dict[str, float]:
    """Returns the fraction of images with a novelty warning, by data set.

    Args:
        path: The model file.
        manifest: Its manifest, with a novelty threshold.
        test: Images on which a warning is a false alarm.
        others: Images of another kind; None for none.
    """
    session, random = open_session(path), np.random.default_rng(0)
    pictures = {
        "test": test,
        "test, inverted": 255 - test,
        "noise": random.integers(0, 256, test.shape, dtype=np.uint8),
        **({} if others is None else {"other data": others}),
    }
    threshold = manifest.image_classification.novelty.threshold
    return {
        f"novelty warnings: {name}": float((predict(session, rows, "novelty") > threshold).mean())
        for name, rows in pictures.items()
    }


def _report_images(measured: Measured, data: Splits[Images], folder: Path) -> None:
    task = measured.fresh.image_classification
    predicted = {split: (output, data.part(split).labels) for split, output in measured.output.items()}
    plot_classification(predicted, task.labels, task.operating_points, folder)
    arrays: dict[str, NDArray[np.generic]] = {}
    for split, (probabilities, labels) in predicted.items():
        arrays |= {f"{split}_probabilities": probabilities, f"{split}_labels": labels}
    np.savez(folder / "predictions.npz", allow_pickle=False, **arrays)


def _report_patients(measured: Measured, data: Splits[Patients], folder: Path) -> None:
    plot_risk(measured.output["test"], data.test, "test", measured.fresh.patient_risk, folder)
    arrays: dict[str, NDArray[np.generic]] = {}
    for split, survival in measured.output.items():
        rows = data.part(split)
        arrays |= {f"{split}_survival": survival, f"{split}_times": rows.times, f"{split}_events": rows.events}
    np.savez(folder / "predictions.npz", allow_pickle=False, **arrays)
