import hashlib
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card import write_card
from medserve_training.commands.cli import main
from medserve_training.data.patient_data import load_patients
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import embed, read_manifest
from medserve_training.export.remeasure import Measured
from medserve_training.recipes.recipe import load_recipe, read_recipe

Fit = Callable[..., Path]
MODELS = Path(__file__).parents[3] / "models"
HOSTILE = "<script>alert(1)</script> | [x](javascript:alert(1)) <img src=x onerror=alert(1)> $\\frac{$ & `x`"
HOSTILE_LABEL = "<b onclick=x>$\\frac{$"


class Page(HTMLParser):
    """Collects the elements of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


def place(model: Path, folder: Path, change: Callable[[pb.Manifest], None] = lambda _: None) -> Path:
    path = folder / "3" / "model.onnx"
    path.parent.mkdir()
    manifest = read_manifest(model)
    change(manifest)
    loaded = onnx.load(model)
    embed(loaded, manifest)
    onnx.save(loaded, path)
    return path


def read_card(path: Path) -> tuple[str, str]:
    return tuple((path.parent / name).read_text(encoding="utf-8") for name in ("card.md", "card.html"))  # type: ignore[return-value] # two


def holds_figures(text: str, manifest: pb.Manifest) -> None:
    for evaluation in manifest.evaluations:
        for metric in evaluation.metrics:
            if not evaluation.subgroup:
                assert f"{metric.value:.3f}" in text, metric.name
            if metric.HasField("interval") and not evaluation.subgroup:
                assert f"[{metric.interval.low:.3f}, {metric.interval.high:.3f}]" in text.replace("\\", ""), metric.name
    for known in (manifest.training.data_sha256, manifest.training.date, *manifest.training.packages.values()):
        assert known in text


def is_self_contained(text: str) -> None:
    page = Page(text)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "base", "img"})
    assert not page.handlers
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", text))
    assert "@import" not in text
    assert len(text.encode()) < 400_000


def test_evaluate_writes_a_card_with_the_metrics_of_the_manifest(digits_model: Path, tmp_path: Path) -> None:
    path = place(digits_model, tmp_path)
    assert main(["evaluate", str(path), "--data", "digits", "--runs", str(tmp_path)]) == 0
    markdown, html = read_card(path)
    manifest = read_manifest(path)
    assert {evaluation.split for evaluation in manifest.evaluations} == {"validation", "test"}
    for text in (markdown, html):
        holds_figures(text, manifest)
        assert "Model card of digits, version 3" in text
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
        assert "Not a medical device" in text
        assert f"{manifest.image_classification.novelty.threshold:.4g}" in text
        assert "test image" in text  # the license permits reproduction
    is_self_contained(html)
    assert html.count("<svg ") == html.count('role="img"') > 4

    assert main(["evaluate", str(path), "--data", "digits", "--runs", str(tmp_path)]) == 0
    assert read_card(path) == (markdown, html)


def test_text_of_a_manifest_is_escaped(digits_model: Path, tmp_path: Path) -> None:
    def spoil(manifest: pb.Manifest) -> None:
        manifest.title = manifest.description = manifest.intended_use = manifest.license = HOSTILE
        manifest.image_classification.labels[3] = HOSTILE_LABEL

    path = place(digits_model, tmp_path, spoil)
    assert main(["evaluate", str(path), "--data", "digits", "--runs", str(tmp_path)]) == 0
    markdown, html = read_card(path)
    is_self_contained(html)
    page = Page(html)
    assert page.text.count(HOSTILE) == 5
    assert "b" not in page.tags
    assert page.text.count(HOSTILE_LABEL) > 4
    assert not re.search(r"(?<!\\)[<`]", markdown)
    assert not re.search(r"(?<!\\)\]\(javascript", markdown)
    head = "| truth | predicted"
    (columns,) = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith(head)}
    assert columns == 12


@pytest.fixture(scope="module")
def two_classes(fit_into: Fit, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A model of two synthetic classes, and the arguments that name its data."""
    folder = tmp_path_factory.mktemp("two")
    random = np.random.default_rng(0)
    for label, bright in (("dark", 110), ("light", 140)):
        (folder / "pictures" / label).mkdir(parents=True)
        for index in range(60):
            pixels = np.clip(random.normal(bright + random.normal(0, 12), 40, (28, 28)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / label / f"{index:02}.png")
    text = re.sub(r"labels = .*", 'labels = ["dark", "light"]', read_recipe("digits"))
    recipe = folder / "two.toml"
    recipe.write_text(re.sub(r'description = "Optical.*', 'description = "made up"', text), encoding="utf-8")
    spec = f'data.spec="folder:{folder / "pictures"}"'
    model = fit_into(folder / "1", str(recipe), spec, "training.epochs=3")
    return model, ["--data", f"folder:{folder / 'pictures'}", "--recipe", str(recipe), "--runs", str(folder)]


def test_two_labels_have_thresholds_and_a_confusion_matrix(two_classes: tuple[Path, list[str]]) -> None:
    path, arguments = two_classes
    assert main(["evaluate", str(path), *arguments]) == 0
    markdown, html = read_card(path)
    is_self_contained(html)
    manifest = read_manifest(path)
    for point in manifest.image_classification.operating_points:
        assert f"| {point.name} | {point.threshold:.3f} | {point.sensitivity:.3f}" in markdown
    matrix = [re.findall(r"(\d+) \(", row) for row in re.findall(r"^\| (?:dark|light) \|.*$", markdown, re.MULTILINE)]
    (test,) = (entry for entry in manifest.evaluations if entry.split == "test")
    assert sum(int(count) for row in matrix for count in row) == test.size
    assert "net benefit" in html
    assert "synthetic image" in html  # no license permits reproduction of the others
    assert "test image" not in html


def test_the_manifest_has_sensitivity_and_specificity_over_a_grid_of_thresholds(
    two_classes: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, arguments = two_classes
    of_fit = read_manifest(model).image_classification.threshold_curves[0]
    assert of_fit.split == "validation"
    path = place(model, tmp_path)
    assert main(["evaluate", str(path), *arguments]) == 0
    manifest = read_manifest(path)
    curves = manifest.image_classification.threshold_curves
    assert [curve.split for curve in curves] == ["validation", "test"]
    assert curves[0] == of_fit
    found = np.load(Path(arguments[-1]) / manifest.name / "predictions.npz")
    for curve in curves:
        assert (curve.positive_label, curve.data) == ("light", manifest.training.data)
        np.testing.assert_array_equal(curve.thresholds, np.arange(100) / 100)
        scores, labels = found[f"{curve.split}_probabilities"][:, 1], found[f"{curve.split}_labels"]
        for threshold, sensitivity, specificity in zip(
            curve.thresholds, curve.sensitivities, curve.specificities, strict=True
        ):
            assert sensitivity == (scores[labels == 1] >= threshold).mean()
            assert specificity == (scores[labels == 0] < threshold).mean()

    def lower(manifest: pb.Manifest) -> None:
        manifest.image_classification.threshold_curves[1].specificities[40] -= 0.01

    def remove(manifest: pb.Manifest) -> None:
        del manifest.image_classification.threshold_curves[:]

    capsys.readouterr()
    options = arguments[:-2]
    assert main(["verify", str(path), *options]) == 0
    (tmp_path / "lower").mkdir()
    assert main(["verify", str(place(path, tmp_path / "lower", lower)), *options]) == 1
    assert "1 of" in capsys.readouterr().out
    (tmp_path / "remove").mkdir()
    assert main(["verify", str(place(path, tmp_path / "remove", remove)), *options]) == 0


def test_a_risk_models_card_lists_splits_cohorts_and_subgroups(risk_model: Path, tmp_path: Path) -> None:
    def measure(manifest: pb.Manifest) -> None:
        def add(split: str, size: int, subgroup: str = "", **values: float) -> None:
            metrics = [
                pb.Metric(name=name, value=value, interval=pb.ConfidenceInterval(low=value / 2, high=value, method="m"))
                for name, value in values.items()
            ]
            data = "another cohort" if split == "external" else manifest.training.data
            entry = pb.Evaluation(data=data, split=split, size=size, subgroup=subgroup, metrics=metrics)
            manifest.evaluations.append(entry)

        add("test", 103, concordance_index=0.6123, observed_to_expected_5_years=1.0321)
        add("cross-validation", 686, concordance_index=0.7051)
        add("external", 1546, concordance_index=0.6912)
        add("test", 71, "grade II", concordance_index=0.5511)
        add("test", 13, "grade I")

    path = place(risk_model, tmp_path, measure)
    recipe, manifest = load_recipe("breast-cancer-risk"), read_manifest(path)
    data, _ = load_patients(recipe)
    session = open_session(path)
    output = {split: predict(session, data.part(split).features).astype(np.float64) for split in ("validation", "test")}
    written = write_card(path, Measured(recipe, manifest, manifest, data, output, {}), {})
    assert [entry.name for entry in written] == ["card.md", "card.html"]
    markdown, html = read_card(path)
    is_self_contained(html)
    for text in (markdown, html):
        holds_figures(text, manifest)
        assert "external: another cohort" in text
        assert "cross-validation, n = 686" in text
    assert "| grade II | test | 71 | 0.551 " in markdown
    assert "| grade I | test | 13 | too small |" in markdown
    assert f"| test | 103 | {data.test.events.sum()} (" in markdown
    for feature in manifest.patient_risk.features:
        assert f"| {feature.name.replace('_', chr(92) + '_')} | {feature.description}" in markdown
    page = Page(html)
    for number in range(4):
        assert f">{'ABCD'[number]}<" in html
    assert "patients at risk" in page.text
    assert recipe.card.limits[0] in page.text


def evaluate(path: Path, recipe: Path) -> tuple[str, str]:
    arguments = ["--data", f"masks:{recipe.parent / 'masks'}", "--recipe", str(recipe), "--runs", str(path.parent)]
    assert main(["evaluate", str(path), *arguments]) == 0
    return read_card(path)


def test_a_segmentation_models_card_has_figures_by_kind_and_size(
    disks_model: Path, disks: Path, tmp_path: Path
) -> None:
    path = place(disks_model, tmp_path)
    markdown, html = evaluate(path, disks)
    is_self_contained(html)
    manifest = read_manifest(path)
    for text in (markdown, html):
        holds_figures(text, manifest)
    (label,) = manifest.image_segmentation.labels
    assert f"| disk | {label.threshold:g} | {label.marker_distance:g} | {label.min_area_px} pixels |" in markdown
    assert f"between {label.count_error.low_ratio:.2f} and {label.count_error.high_ratio:.2f} times" in markdown
    assert re.search(r"^\| odd \| test \| 2 \| 0\.", markdown, re.MULTILINE)
    sizes = re.findall(r"^\| [\d.]+ to [\d.]+ \| (\d+) \| [01]\.\d{3} ", markdown, re.MULTILINE)
    assert sum(map(int, sizes)) == 4 * 6  # test images, and disks in each
    flagged = re.findall(r"^\| (?:failures|others).* \| (\d+) \| \d+ \|$", markdown, re.MULTILINE)
    assert sum(map(int, flagged)) == 4
    assert "training.schedule" in markdown
    assert "calibration.methods" not in markdown  # has no effect
    assert html.count("<svg ") == html.count('role="img"') == 3


@pytest.mark.parametrize(
    ("data", "pictures", "shown"), [("made up", False, False), ("made up, CC0", False, True), ("made up", True, True)]
)
def test_images_are_shown_only_if_license_or_recipe_permits_it(
    data: str, pictures: bool, shown: bool, disks_model: Path, disks: Path, tmp_path: Path
) -> None:
    def describe(manifest: pb.Manifest) -> None:
        manifest.training.data = data

    path, recipe = place(disks_model, tmp_path, describe), tmp_path / "recipe.toml"
    (tmp_path / "masks").symlink_to(disks.parent / "masks")
    text = disks.read_text(encoding="utf-8") + (f"[card]\npictures = {str(pictures).lower()}\n")
    recipe.write_text(text, encoding="utf-8")
    markdown, html = evaluate(path, recipe)
    is_self_contained(html)
    assert ("worst test image" in markdown) is shown
    assert html.count("data:image/png") == (3 if shown else 0)


def test_a_measures_card_has_its_agreement(heads_model: Path, heads: Path, tmp_path: Path) -> None:
    path = place(heads_model, tmp_path)
    markdown, html = evaluate(path, heads)
    is_self_contained(html)
    (measure,) = read_manifest(path).image_segmentation.labels[0].measures
    assert f"| validation | 4 | {measure.bias_mm:.2f} mm | {measure.agreement_mm:.2f} mm |" in markdown
    assert "Bland-Altman" in html
    assert "intersection over union (IoU)" in markdown


@pytest.mark.parametrize("name", ["chest-xray", "breast-cancer-risk"])
def test_the_committed_cards_belong_to_their_models(name: str) -> None:
    path = MODELS / name / "1" / "model.onnx"
    markdown, html = read_card(path)
    is_self_contained(html)
    for text in (markdown, html):
        holds_figures(text, read_manifest(path))
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text, f"evaluate {os.fspath(path)} again"
