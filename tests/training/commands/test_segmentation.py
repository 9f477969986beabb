"""The commands on small segmentation models: touching disks in tiles, and the circumference of an ellipse."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from medserve_masks import label_objects
from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.commands.cli import main
from medserve_training.data.masks.image import MaskedImages
from medserve_training.data.masks.load import load_masks
from medserve_training.data.splits import Splits
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import embed, read_manifest
from medserve_training.export.measure_images import validation_metric
from medserve_training.export.reference import reference_deviation, reference_input
from medserve_training.export.segmentation.describe import object_rule
from medserve_training.export.segmentation.maps import predict_maps
from medserve_training.recipes.recipe import load_recipe
from medserve_training.recipes.segmentation_settings import SegmentationTask
from samples.made_up_masks import write_disks

# A small and short training.
FAST = ("--set", "training.epochs=1", "--set", "training.members=1", "--set", "crops.per_epoch=8")


def source(recipe: Path) -> list[str]:
    """Returns the arguments that name recipe and data of a model."""
    return ["--recipe", str(recipe), "--data", f"masks:{recipe.parent / 'masks'}"]


def load(recipe: Path) -> Splits[MaskedImages]:
    loaded = load_recipe(str(recipe))
    assert isinstance(loaded.task, SegmentationTask)
    return load_masks(loaded, loaded.task, Path())


def copied(model: Path, folder: Path, change: Callable[[pb.Manifest], None] = lambda _: None) -> Path:
    """Copies a model, with a changed manifest."""
    manifest, loaded = read_manifest(model), onnx.load(model)
    change(manifest)
    embed(loaded, manifest)
    path = folder / "models" / manifest.name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(loaded, path)
    return path


def metrics(manifest: pb.Manifest, split: str, subgroup: str = "") -> dict[str, float]:
    (found,) = (entry for entry in manifest.evaluations if (entry.split, entry.subgroup) == (split, subgroup))
    return {metric.name: metric.value for metric in found.metrics}


def intersection_over_union(truth: NDArray[np.int32], found: NDArray[np.int32]) -> NDArray[np.float64]:
    """Returns that of each true and each found object, pixel by pixel."""
    rows = [truth == number for number in np.unique(truth[truth > 0])]
    columns = [found == number for number in np.unique(found[found > 0])]
    return np.array([[(row & column).sum() / (row | column).sum() for column in columns] for row in rows])


def test_fit_writes_a_graph_of_free_size_and_its_description(disks_model: Path) -> None:
    session, task = open_session(disks_model), read_manifest(disks_model).image_segmentation
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[3]) == ("image", "tensor(uint8)", 3)
    assert all(isinstance(side, str) for side in image.shape[:3])
    outputs = {output.name: output.shape for output in session.get_outputs()}
    assert list(outputs) == ["probabilities", "distance", "disagreement", "novelty"]
    assert [len(shape) for shape in outputs.values()] == [4, 4, 4, 1]
    assert (task.input.stride, task.input.tiling.max_side, task.input.tiling.margin) == (2, 32, 4)
    assert (task.members, task.novelty.threshold > 0) == (2, True)
    (label,) = task.labels
    assert (label.name, label.chosen_on, label.largest_only) == ("disk", "validation", False)
    assert label.HasField("marker_distance")
    assert 0 < label.count_error.low_ratio <= 1 <= label.count_error.high_ratio
    plots = {path.name for path in (disks_model.parent / "report").glob("*.png")}
    assert plots == {"counts.png", "loss.png", "precision.png", "sizes.png"}


def test_the_reference_rows_are_reproduced(disks_model: Path) -> None:
    manifest = read_manifest(disks_model)
    output = predict(open_session(disks_model), reference_input(manifest))
    assert reference_deviation(manifest, output) <= 1e-5


def test_touching_disks_are_found(disks_model: Path) -> None:
    manifest = read_manifest(disks_model)
    assert metrics(manifest, "validation")["average_precision_50"] > 0.5
    assert metrics(manifest, "validation")["dice"] > 0.9


def test_figures_are_those_of_the_objects_found(disks_model: Path, disks: Path) -> None:
    manifest, session = read_manifest(disks_model), open_session(disks_model)
    task = manifest.image_segmentation
    precisions = []
    for image in load(disks).validation:
        maps = predict_maps(session, image.pixels, task.input)
        found = label_objects(maps["probabilities"][0], maps["distance"][0], object_rule(task.labels[0]))
        overlaps = intersection_over_union(image.labels[0], found)
        hits = (overlaps > 0.5).sum()
        precisions.append(hits / (sum(overlaps.shape) - hits))
    assert metrics(manifest, "validation")["average_precision_50"] == pytest.approx(np.mean(precisions))


def test_evaluate_writes_figures_objects_and_plots_that_verify_confirms(
    disks_model: Path, disks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = copied(disks_model, tmp_path)
    assert main(["evaluate", str(model), *source(disks), "--runs", str(tmp_path)]) == 0
    manifest, report = read_manifest(model), tmp_path / "disks"
    assert [(entry.split, entry.subgroup) for entry in manifest.evaluations] == [
        (split, kind) for split in ("validation", "test") for kind in ("", "even", "odd")
    ]
    figures = json.loads((report / "evaluation.json").read_text(encoding="utf-8"))
    assert figures["test: dice"] == metrics(manifest, "test")["dice"]
    with (report / "predictions.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(figures["test: dice"])
    objects = np.load(report / "predictions.npz")
    for row, image in zip(rows, load(disks).test, strict=True):
        assert (row["image"], row["group"], row["kind"]) == (image.name, image.group, image.kind)
        assert objects[f"test/{image.name}"].shape == image.labels.shape
        assert int(row["disk: objects found"]) == objects[f"test/{image.name}"].max()
        assert int(row["disk: true objects"]) == len(np.unique(image.labels)) - 1
    assert {path.name for path in report.glob("*.png")} == {"counts.png", "precision.png", "sizes.png"}

    capsys.readouterr()
    assert main(["verify", str(model), *source(disks)]) == 0
    assert f"All {len(figures)} figures are the same" in capsys.readouterr().out


def test_verify_detects_a_changed_threshold(
    disks_model: Path, disks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(manifest: pb.Manifest) -> None:
        manifest.image_segmentation.labels[0].threshold += 0.01

    assert main(["verify", str(copied(disks_model, tmp_path, change)), *source(disks)]) == 1
    assert "1 of " in capsys.readouterr().out


def test_verify_detects_changed_masks(disks_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_disks(tmp_path)
    mask = tmp_path / "masks" / "00_disk.png"
    mask.write_bytes((tmp_path / "masks" / "01_disk.png").read_bytes())
    assert main(["verify", str(disks_model), *source(recipe)]) == 1
    assert "the training split has the SHA-256" in capsys.readouterr().err


def test_a_circumference_agrees_with_its_reference(heads_model: Path, heads: Path, tmp_path: Path) -> None:
    manifest = read_manifest(heads_model)
    (label,) = manifest.image_segmentation.labels
    (measure,) = label.measures
    assert (label.largest_only, label.fill_holes, label.HasField("count_error")) == (True, True, False)
    assert (measure.name, measure.kind) == ("circumference", pb.Measure.KIND_ELLIPSE_CIRCUMFERENCE)
    assert abs(measure.offset_px) < 5
    assert measure.bias_mm == pytest.approx(0, abs=1e-9)  # the offset corrects it
    model = copied(heads_model, tmp_path)
    assert main(["evaluate", str(model), *source(heads), "--runs", str(tmp_path)]) == 0
    with (tmp_path / "heads" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    errors = [float(row["measure_mm"]) - float(row["reference_mm"]) for row in rows if row["split"] == "validation"]
    assert np.mean(errors) == pytest.approx(measure.bias_mm)
    assert 1.96 * np.std(errors, ddof=1) == pytest.approx(measure.agreement_mm)
    plots = {path.name for path in (tmp_path / "heads").glob("*.png")}
    assert plots == {"agreement.png", "dice.png", "measured.png"}
    assert main(["verify", str(model), *source(heads)]) == 0


def test_repeat_trains_with_several_seeds(heads: Path, tmp_path: Path) -> None:
    assert main(["repeat", str(heads), *FAST, "--seeds", "2", "--runs", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "heads-seeds" / "seeds.json").read_text(encoding="utf-8"))
    first, second = found["figures"]["test: dice"]
    assert first != second


def test_tune_varies_keys_of_segmentation(heads: Path, tmp_path: Path) -> None:
    vary = ["--vary", "segmentation_loss.focal=0.0,1.0", "--grid", "--runs", str(tmp_path)]
    assert main(["tune", str(heads), *FAST, *vary]) == 0
    best = load_recipe(str(tmp_path / "heads-tune" / "best.toml"))
    assert best.segmentation_loss.focal in (0.0, 1.0)


def test_quantize_keeps_the_interface_and_measures_the_loss(
    disks_model: Path, disks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = copied(disks_model, tmp_path)
    arguments = ["--rows", "16", "--max-loss", "0.2"]
    assert main(["quantize", str(model), *source(disks), *arguments]) == 0
    path = tmp_path / "models" / "disks-int8" / "1" / "model.onnx"
    before, after = onnx.load(model), onnx.load(path)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    kinds = {entry.data_type for entry in after.graph.initializer if len(entry.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT8}
    manifest = read_manifest(path)
    stated = manifest.quantization
    assert stated.metric == "average_precision_50"
    assert stated.metric_before == validation_metric(read_manifest(model), stated.metric)
    assert stated.metric_after == validation_metric(manifest, stated.metric)
    assert "on 16 training and 64 made-up rows" in stated.method
    sessions, size = [open_session(one) for one in (model, path)], manifest.image_segmentation.input
    deviation = 0.0
    for image in load(disks).validation:
        one, other = (predict_maps(session, image.pixels, size)["probabilities"] for session in sessions)
        deviation = max(deviation, float(np.abs(one - other).max()))
    assert stated.max_deviation == pytest.approx(deviation)

    capsys.readouterr()
    assert main(["verify", str(path), *source(disks)]) == 0
    rejected = ["quantize", str(model), *source(disks), "--rows", "8", "--max-loss=-1"]
    assert main([*rejected, "--output", str(tmp_path / "other" / "1")]) == 1
    assert "average_precision_50 on validation falls from" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
