"""Client, AsyncClient and the command against the real server and the two real models."""

import csv
import io
import json
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
    HealthStatus,
    ImageWarningKind,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PatientWarningKind,
    ResourceExhaustedError,
    RiskResponse,
)
from samples.patient import PATIENT
from servers.server_process import ServerProcess, running_server


@pytest.fixture
def target(server: ServerProcess) -> str:
    return server.target


def pixels(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Returns an image of the model's size."""
    return np.random.default_rng(seed).integers(0, 256, (28, 28), dtype=np.uint8)


def png(image: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def medserve(target: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medserve_client.cli", "--server", target, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_models_are_listed_and_described(target: str) -> None:
    with Client(target) as client:
        assert {"breast-cancer-risk", "chest-xray"} <= {model.name for model in client.models() if model.ready}
        description = client.describe("breast-cancer-risk")
        assert set(PATIENT) == {feature.name for feature in description.manifest.patient_risk.features}
        assert len(description.sha256) == 64
        assert client.health() is HealthStatus.SERVING
        assert client.health("medserve.v1.PatientRisk") is HealthStatus.SERVING
        with pytest.raises(NotFoundError):
            client.describe("chest-xray", version="999")


def test_file_and_its_pixels_give_equal_results(target: str, tmp_path: Path) -> None:
    image = pixels(0)
    path = tmp_path / "xray.png"
    path.write_bytes(png(image))
    with Client(target) as client:
        from_path, from_bytes, from_pixels = client.classify([path, png(image), image], "chest-xray").results
    assert from_path == from_bytes == from_pixels
    assert sum(label.probability for label in from_path.labels) == pytest.approx(1)


def test_resized_image_has_a_warning(target: str) -> None:
    with Client(target) as client:
        result = client.classify(png(np.zeros((56, 56), dtype=np.uint8)), "chest-xray", top_k=1).results[0]
    assert result.warnings[0].kind == ImageWarningKind.RESIZED
    assert len(result.labels) == 1


def test_result_does_not_depend_on_other_patients_of_the_request(target: str) -> None:
    patients = [PATIENT | {"age": age} for age in range(30, 60)]
    with Client(target) as client:
        together = client.predict_risk(patients, "breast-cancer-risk").results
        alone = [client.predict_risk(patient, "breast-cancer-risk").results[0] for patient in patients]
    for one, other in zip(together, alone, strict=True):
        assert [risk.horizon for risk in one.risks] == ["1 year", "3 years", "5 years"]
        assert [risk.risk for risk in one.risks] == pytest.approx([risk.risk for risk in other.risks], abs=1e-6)
        assert one.survival.probabilities.shape == one.survival.times.shape
        assert (np.diff(one.survival.probabilities) <= 0).all()
        assert not any(warning.feature for warning in one.warnings)


def test_imputed_and_unusual_values_have_warnings(target: str) -> None:
    with Client(target) as client:
        result = client.predict_risk(PATIENT | {"grade": None, "age": 95}, "breast-cancer-risk").results[0]
    assert {(warning.feature, warning.kind) for warning in result.warnings if warning.feature} == {
        ("grade", PatientWarningKind.IMPUTED),
        ("age", PatientWarningKind.OUT_OF_TRAINING_RANGE),
    }


def test_all_invalid_fields_are_reported(target: str) -> None:
    patients = [PATIENT, PATIENT | {"age": float("nan"), "grade": "IV"}, PATIENT | {"shoe_size": 42}]
    with Client(target) as client:
        with pytest.raises(InvalidArgumentError) as caught:
            client.predict_risk(patients, "breast-cancer-risk")
        assert {(violation.item, violation.feature) for violation in caught.value.violations} == {
            (1, "age"),
            (1, "grade"),
            (2, "shoe_size"),
        }
        with pytest.raises(InvalidArgumentError) as caught:
            client.classify([pixels(0), b"not an image"], "chest-xray")
        assert [violation.item for violation in caught.value.violations] == [1]


def test_streams_preserve_order(target: str) -> None:
    batches = [[PATIENT | {"age": age}] * 2 for age in (30, 40, -1, 50)]
    with Client(target) as client:
        outcomes = list(client.predict_risk_stream(batches, "breast-cancer-risk"))
        assert [type(outcome) for outcome in outcomes] == [
            RiskResponse,
            RiskResponse,
            InvalidArgumentError,
            RiskResponse,
        ]
        images = [pixels(seed) for seed in range(20)]
        alone = [client.classify(image, "chest-xray").results[0].labels[0] for image in images]
        for outcome, label in zip(client.classify_stream(images, "chest-xray"), alone, strict=True):
            assert isinstance(outcome, ClassificationResponse)
            assert outcome.results[0].labels[0].label == label.label
            assert outcome.results[0].labels[0].probability == pytest.approx(label.probability, abs=1e-5)


async def test_async_client(target: str) -> None:
    async with AsyncClient(target) as client:
        response = await client.predict_risk(PATIENT, "breast-cancer-risk")
        assert response.results[0].risk_group in {"low", "intermediate", "high"}
        outcomes = [outcome async for outcome in client.classify_stream([pixels(0), b"not an image"], "chest-xray")]
    assert [type(outcome) for outcome in outcomes] == [ClassificationResponse, InvalidArgumentError]


def test_commands_that_describe_server_and_models(target: str) -> None:
    assert "chest-xray" in medserve(target, "models").stdout
    assert medserve(target, "health").stdout == "SERVING\n"
    described = medserve(target, "describe", "breast-cancer-risk")
    assert described.returncode == 0
    assert "fmol/l" in described.stdout
    manifest = json.loads(medserve(target, "describe", "chest-xray", "--json").stdout)["manifest"]
    assert manifest["name"] == "chest-xray"
    assert medserve(target, "describe", "liver").returncode == 4


def test_classify_command(target: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(png(pixels(0)))
    bad.write_text("not an image")
    done = medserve(target, "classify", "--json", bad, good)
    assert done.returncode == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["file"], second["file"]) == (str(bad), str(good))
    assert "not a PNG, JPEG, TIFF or DICOM file" in first["error"]
    assert {label["label"] for label in second["labels"]} == {"normal", "pneumonia"}


def test_risk_command(target: str, tmp_path: Path) -> None:
    path, output = tmp_path / "patients.csv", tmp_path / "risks.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", *PATIENT])
        writer.writeheader()
        for index in range(600):
            writer.writerow({"id": index} | PATIENT | {"age": 30 + index % 40})
        writer.writerow({"id": 600} | PATIENT | {"age": 300})
        writer.writerow({"id": 601} | PATIENT | {"grade": ""})
    done = medserve(target, "risk", path, "-o", output)
    assert done.returncode == 1
    assert f"{path}:602: column age: " in done.stderr
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(index) for index in range(602)]
    assert rows[600]["risk_5_years"] == ""
    assert "grade is missing" in rows[601]["warnings"]
    with Client(target) as client:
        expected = client.predict_risk(PATIENT | {"age": 33}, "breast-cancer-risk").results[0]
    assert float(rows[3]["risk_5_years"]) == pytest.approx(expected.risks[2].risk, abs=2e-6)


def test_overload_and_oversized_messages_raise_different_errors(transport: str) -> None:
    limits = ("--max-client-rate", "0.01", "--max-message-mib", "1")
    with running_server("--transport", transport, *limits) as server, Client(server.target) as client:
        client.predict_risk(PATIENT, "breast-cancer-risk")
        with pytest.raises(OverloadedError, match=r"more than 0\.01 requests per second"):
            client.predict_risk(PATIENT, "breast-cancer-risk")
    with running_server("--transport", transport, *limits[2:]) as server, Client(server.target) as client:
        with pytest.raises(ResourceExhaustedError) as caught:
            client.classify(bytes(2_000_000), "chest-xray")
        assert not isinstance(caught.value, OverloadedError)
