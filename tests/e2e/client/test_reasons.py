"""Explanations by Client, AsyncClient and the command, with models whose results are known."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medserve_client import (
    AsyncClient,
    ClassificationResponse,
    Client,
    FailedPreconditionError,
    FeatureValue,
    ImageReasons,
    ImageWarningKind,
    InvalidArgumentError,
    PatientWarningKind,
    RiskReasons,
    RiskResponse,
    WhatIf,
)
from medserve_client.cli import main
from processes import started
from samples import explained_models as known
from servers.server_process import ServerProcess

Captured = pytest.CaptureFixture[str]
PATIENT: dict[str, FeatureValue] = {"age": 60, "size": 20, "grade": "II", "nodes": 3}
BRIGHT = np.full((known.HEIGHT, known.WIDTH), 250, np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (known.HEIGHT, known.WIDTH), dtype=np.uint8)


@pytest.fixture
def target(explaining: ServerProcess) -> str:
    return explaining.target


@pytest.fixture
def image_paths(tmp_path: Path) -> list[str]:
    """Files of NOISE and BRIGHT."""
    for name, pixels in (("noise", NOISE), ("bright", BRIGHT)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return [str(tmp_path / "noise.png"), str(tmp_path / "bright.png")]


@pytest.fixture
def patients(tmp_path: Path) -> str:
    path = tmp_path / "patients.csv"
    path.write_text("id,age,size,grade,nodes\nA-1,60,20,II,3\nA-2,95,,I,2\nA-3,400,20,I,2\n")
    return str(path)


def test_maps_are_arrays(target: str) -> None:
    reasons = ImageReasons("lesion", class_activation=True, occlusion=True, feature_maps=["pool"], overlay=True)
    with Client(target) as client:
        noise, bright = client.classify([NOISE, BRIGHT], "lesions", reasons=reasons).results
        plain = client.classify(NOISE, "lesions").results[0]
    assert noise.class_activation is not None
    assert noise.occlusion is not None
    means = NOISE.reshape(2, 7, 3, 7).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(noise.class_activation.values, means, atol=1e-6)
    np.testing.assert_allclose(noise.feature_maps[0].values, means[None], atol=1e-6)
    assert (noise.class_activation.label, noise.occlusion.label) == ("lesion", "lesion")
    assert noise.occlusion.values.shape == (7, 7)
    assert Image.open(io.BytesIO(noise.occlusion.overlay_png)).width == 16 * known.WIDTH
    assert noise.uncertainty == plain.uncertainty == pytest.approx(noise.labels[0].probability * known.MEMBERS.std())
    assert noise.novelty == pytest.approx(NOISE.mean())
    assert [warning.kind for warning in bright.warnings] == [ImageWarningKind.UNFAMILIAR]
    assert (plain.class_activation, plain.occlusion, plain.feature_maps) == (None, None, ())


def test_contributions_sum_to_the_risk(target: str) -> None:
    reasons = RiskReasons("1 year", shapley=True, what_if=WhatIf("size", low=10, high=20, points=3))
    with Client(target) as client:
        result = client.predict_risk(PATIENT, "decay", reasons=reasons).results[0]
        by_name = client.predict_risk(PATIENT, "decay", reasons=RiskReasons(what_if="grade")).results[0]
        plain = client.predict_risk(PATIENT | {"age": 95}, "decay").results[0]
    assert result.shapley is not None
    assert result.what_if is not None
    total = result.shapley.base_risk + sum(one.value for one in result.shapley.contributions)
    assert total == pytest.approx(result.risks[0].risk, abs=1e-9)
    assert [point.value for point in result.what_if.points] == [10, 15, 20]
    assert by_name.shapley is None
    assert by_name.what_if is not None
    assert [point.value for point in by_name.what_if.points] == ["I", "II", "III"]
    assert by_name.what_if.horizon == "5 years"
    assert plain.risks[0].uncertainty == pytest.approx(0.25 * (1 - plain.risks[0].risk), rel=1e-5)
    assert plain.novelty == 45
    assert plain.warnings[-1].kind is PatientWarningKind.UNFAMILIAR


def test_unavailable_explanation_is_an_error(target: str) -> None:
    with Client(target) as client:
        with pytest.raises(FailedPreconditionError, match="without class activation maps"):
            client.classify(NOISE, "plain-lesions", reasons=ImageReasons(class_activation=True))
        with pytest.raises(InvalidArgumentError) as caught:
            client.predict_risk(PATIENT, "decay", reasons=RiskReasons(what_if="shoe_size"))
    assert [violation.field for violation in caught.value.violations] == ["reasons.what_if.feature"]


async def test_explanations_by_async_client_and_streams(target: str) -> None:
    with Client(target) as client:
        (image,) = client.classify_stream([NOISE], "lesions", reasons=ImageReasons(occlusion=True))
        (risk,) = client.predict_risk_stream([PATIENT], "decay", reasons=RiskReasons(shapley=True))
    async with AsyncClient(target) as client_:
        images = [
            image,
            await client_.classify(NOISE, "lesions", reasons=ImageReasons(occlusion=True)),
            *[one async for one in client_.classify_stream([NOISE], "lesions", reasons=ImageReasons(occlusion=True))],
        ]
        risks = [
            risk,
            await client_.predict_risk(PATIENT, "decay", reasons=RiskReasons(shapley=True)),
            *[one async for one in client_.predict_risk_stream([PATIENT], "decay", reasons=RiskReasons(shapley=True))],
        ]
    for response in images:
        assert isinstance(response, ClassificationResponse)
        assert response.results[0].occlusion is not None
    for prediction in risks:
        assert isinstance(prediction, RiskResponse)
        assert prediction.results[0].shapley is not None


def test_command_prints_and_draws_maps(target: str, image_paths: list[str], tmp_path: Path, capsys: Captured) -> None:
    overlays = tmp_path / "overlays"
    flags = ("--class-activation", "--occlusion", "--label", "lesion", "--overlay", str(overlays))
    assert main(["--server", target, "classify", "--model", "lesions", *flags, *image_paths]) == 0
    shown = capsys.readouterr().out
    mean = NOISE[:7, :7].mean() / 255
    for words in (
        "± ",
        "unlike the images that the model was trained on: novelty 250, expected up to 200",
        f"{image_paths[0]}, class activation: contribution of each cell to the score of lesion\n {mean:+.3f} ",
        f"{image_paths[0]}, occlusion: drop in the probability of lesion when each cell is covered\n ",
    ):
        assert words in shown
    assert sorted(path.name for path in overlays.iterdir()) == [
        "bright.class_activation.png",
        "bright.occlusion.png",
        "noise.class_activation.png",
        "noise.occlusion.png",
    ]
    with Image.open(overlays / "noise.occlusion.png") as drawing:
        assert drawing.width == 16 * known.WIDTH


def test_command_prints_explanations_as_json(
    target: str, image_paths: list[str], patients: str, capsys: Captured
) -> None:
    assert main(["--server", target, "classify", "--model", "lesions", "--json", "--occlusion", image_paths[1]]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["novelty"], line["warnings"][0]["kind"]) == (250, "unfamiliar")
    assert line["uncertainty"] > 0
    assert line["occlusion"]["label"] == "lesion"
    np.testing.assert_allclose(line["occlusion"]["values"], np.zeros((7, 7)), atol=1e-6)
    assert "class_activation" not in line

    flags = ("--shapley", "--what-if", "grade", "--horizon", "1 year")
    assert main(["--server", target, "risk", "--model", "decay", "--json", *flags, patients]) == 1
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["line"], first["risk_group"], first["risks"][0]["horizon"]) == (2, "any", "1 year")
    total = first["shapley"]["base_risk"] + sum(one["value"] for one in first["shapley"]["contributions"])
    assert total == pytest.approx(first["risks"][0]["risk"])
    assert [point["value"] for point in first["what_if"]["points"]] == ["I", "II", "III"]
    assert [warning["kind"] for warning in second["warnings"]] == ["out_of_training_range", "imputed", "unfamiliar"]
    assert (third["line"], third["model"], third["version"]) == (4, "decay", "1")
    assert third["errors"] == ["column age: is 400, expected a whole number from 18 to 110 years"]


def test_contributions_are_columns_of_the_csv(target: str, patients: str, capsys: Captured) -> None:
    assert main(["--server", target, "risk", "--model", "decay", "--shapley", patients]) == 1
    header, *rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert header[5:-3] == [
        *("risk_1_year", "risk_5_years", "uncertainty_1_year", "uncertainty_5_years", "base_risk"),
        *("contribution_age", "contribution_size", "contribution_grade", "contribution_nodes"),
    ]
    numbers = [float(cell) for cell in rows[0][5:14]]
    assert sum(numbers[4:]) == pytest.approx(numbers[1], abs=1e-5)
    assert rows[2][5:16] == [""] * 11


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("classify", "x.png", "--overlay", "maps"), "--overlay and --label apply to maps"),
        (("classify", "a/x.png", "b/x.png", "--occlusion", "--overlay", "maps"), "2 images are named x: their"),
        (("risk", "x.csv", "--horizon", "1 year"), "--horizon applies to explanations"),
        (
            ("risk", "x.csv", "--what-if", "age"),
            "a CSV cannot hold the curve of --what-if",
        ),
        (("risk", "x.csv", "--json", "-o", "y.csv"), "-o writes a file, but --json writes to standard output"),
    ],
)
def test_incompatible_flags_are_refused(target: str, arguments: tuple[str, ...], error: str, capsys: Captured) -> None:
    model = "lesions" if arguments[0] == "classify" else "decay"
    assert main(["--server", target, *arguments, "--model", model]) == 2
    assert f"medserve: {error}" in capsys.readouterr().err


def test_errors_of_the_server_are_printed(target: str, patients: str, capsys: Captured) -> None:
    assert main(["--server", target, "risk", "--model", "decay", "--shapley", "--horizon", "2 years", patients]) == 4
    assert "medserve: reasons.horizon: is '2 years', expected one of 1 year, 5 years\n" in capsys.readouterr().err


def test_describe_lists_available_explanations(target: str, capsys: Captured) -> None:
    for model, words in {
        "lesions": ("3 members", "mean pixel, above 200", "class activation 2 x 3; occlusion; feature maps of pool"),
        "plain-lesions": ("Reasons: occlusion\n",),
        "decay": ("2 members", "distance from 50 years, above 40", "Shapley values against 5 patients; what-if"),
        "plain-decay": ("Reasons: what-if\n",),
    }.items():
        assert main(["--server", target, "describe", model]) == 0
        shown = capsys.readouterr().out
        for text in words:
            assert text in shown


def test_contributions_are_bars_on_a_terminal(target: str, patients: str) -> None:
    controller, terminal = pty.openpty()
    flags = ("--model", "decay", "--shapley", "--what-if", "grade")
    command = [sys.executable, "-m", "medserve_client.cli", "--server", target, "risk", patients, *flags]
    environment = os.environ | {"TERM": "dumb", "COLUMNS": "120"}
    with started(command, stdout=terminal, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(controller, 4096):
                shown += part
        except OSError:
            pass  # how Linux reports that the other end of a terminal is closed
        os.close(controller)
    assert process.returncode == 1
    text = shown.decode()
    base = known.decay_risk(np.array(known.BACKGROUND), 2).mean()
    for words in ("A-1", "±", f"where the background's mean is {base:.1%}", "█" * 24, "missing", "values of grade"):
        assert words in text
