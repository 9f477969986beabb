"""Client against a real server: requests, results and errors."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from medserve_client import (
    Client,
    FailedPreconditionError,
    FieldViolation,
    HealthStatus,
    ImageWarningKind,
    InferenceError,
    InvalidArgumentError,
    ModelSummary,
    NotFoundError,
    Patient,
    PatientWarningKind,
    ResourceExhaustedError,
    RiskResponse,
    Task,
)


@pytest.fixture
def client(clinic: str) -> Iterator[Client]:
    with Client(clinic) as client:
        yield client


def test_lists_the_models(client: Client) -> None:
    assert client.models() == [
        ModelSummary("lungs", "1", Task.IMAGE_CLASSIFICATION, "Lungs in test pictures", ready=True, provider="cpu"),
        ModelSummary("relapse", "1", Task.PATIENT_RISK, "Relapse in test patients", ready=True, provider="cpu"),
    ]


def test_describes_a_model(client: Client) -> None:
    description = client.describe("relapse")
    assert (description.name, description.version, description.sha256) == ("relapse", "1", "5ca1ab1e")
    assert [feature.name for feature in description.manifest.patient_risk.features] == ["age", "tumor_size", "grade"]


def test_an_unknown_model_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no model liver here") as caught:
        client.describe("liver")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert caught.value.violations == ()


def test_classifies_every_kind_of_image(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "xray.png"
    path.write_bytes(b"four")
    gray = np.array([[1, 2]], dtype=np.uint8)
    color = np.array([[[1, 2, 3]]], dtype=np.uint8)
    every_second = np.array([[1, 0, 2, 0]], dtype=np.uint8)[:, ::2]

    response = client.classify([path, str(path), b"three", gray, color, every_second], "lungs")

    assert (response.model_name, response.model_version) == ("lungs", "1")
    assert [result.warnings[0].message for result in response.results] == [
        "encoded 4",
        "encoded 4",
        "encoded 5",
        "raw [1, 2] 0102",
        "raw [1, 1, 3] 010203",
        "raw [1, 2] 0102",
    ]


@pytest.mark.parametrize("single", [b"one", np.zeros((2, 2), dtype=np.uint8)])
def test_a_single_image_needs_no_list(client: Client, single: bytes) -> None:
    assert len(client.classify(single, "lungs").results) == 1


def test_a_frame_can_be_selected(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "scan.dcm"
    path.write_bytes(b"four")
    results = client.classify([b"one", path], "lungs", frame=3).results
    assert [result.warnings[0].message for result in results] == ["encoded 3, frame 3", "encoded 4, frame 3"]
    with pytest.raises(ValueError, match="out of range"):
        client.classify(b"one", "lungs", frame=-1)


def test_an_image_result_is_typed(client: Client) -> None:
    result = client.classify(b"one", "lungs", top_k=1).results[0]
    assert [(label.label, label.probability) for label in result.labels] == [("normal", 0.75)]
    assert (result.decision.label, result.decision.operating_point) == ("pneumonia", "sensitive")
    assert (result.decision.positive_label, result.decision.threshold) == ("pneumonia", 0.25)
    assert result.warnings[0].kind is ImageWarningKind.RESIZED


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((2, 2)), TypeError, r"images\[1\] is an array of float64; expected uint8"),
        (np.zeros((1, 1, 1, 1), dtype=np.uint8), ValueError, r"shape \(1, 1, 1, 1\); .* Pass several images as a"),
        (7, TypeError, r"images\[1\] is a int; expected a path"),
        (Path("nowhere.png"), FileNotFoundError, "nowhere.png"),
    ],
)
def test_an_invalid_image_is_rejected_by_the_client(
    client: Client, image: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        client.classify([b"fine", image], "lungs")


def test_predicts_from_every_type_of_value(client: Client) -> None:
    patient: Patient = {
        "age": 40,
        "tumor_size": np.float32(2.5),
        "grade": "II",
        "a": np.int64(3),
        "b": np.bool_(1),
        "c": None,
    }
    response = client.predict_risk(patient, "relapse")
    assert [warning.message for warning in response.results[0].warnings] == [
        "age number 40",
        "tumor_size number 2.5",
        "grade category II",
        "a number 3",
        "b number 1",
        "c missing",
    ]


def test_a_patient_result_is_typed(client: Client) -> None:
    response = client.predict_risk([{"age": 40}, {"age": 50}], "relapse")
    assert (response.model_name, response.model_version, len(response.results)) == ("relapse", "1", 2)
    result = response.results[0]
    assert [(risk.horizon, risk.time, risk.risk) for risk in result.risks] == [
        ("1 year", 365.0, 0.125),
        ("5 years", 1826.0, 0.5),
    ]
    assert result.risk_group == "high"
    assert result.warnings[0].kind is PatientWarningKind.UNSPECIFIED
    np.testing.assert_array_equal(result.survival.times, np.array([0.0, 365.0, 1826.0]))
    assert result.survival.times.dtype == np.float64
    assert result.survival.probabilities.dtype == np.float32


def test_nan_is_sent_and_rejected_by_the_server(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="nan is not from 0 to 120"):
        client.predict_risk({"age": float("nan")}, "relapse")


@pytest.mark.parametrize(
    ("patients", "text"),
    [
        ("age", r"patients is a str; expected a mapping of features to values, or a list of them"),
        (b"age", r"patients is a bytes; expected a mapping"),
        (7, r"patients is a int; expected a mapping"),
        ({"age"}, r"patients is a set; expected a mapping"),
        (np.zeros((1, 2)), r"patients is a ndarray; expected a mapping"),
        ([{"age": 60}, "age"], r"patients\[1\] is a str; expected a mapping of features to values"),
        ([[("age", 60)]], r"patients\[0\] is a list; expected a mapping of features to values"),
    ],
)
def test_an_invalid_patient_is_rejected_by_the_client(client: Client, patients: Any, text: str) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=text):
        client.predict_risk(patients, "clinic")


def test_an_invalid_value_is_rejected_by_the_client(client: Client) -> None:
    with pytest.raises(TypeError, match=r"patients\[1\]\.features\[age\] is a list; expected a number"):
        client.predict_risk([{"age": 1}, {"age": [2]}], "relapse")  # type: ignore[dict-item]


def test_every_violation_of_a_request_is_reported(client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.predict_risk([{"age": 130}, {"age": 40}, {"tumor_size": 500}], "relapse")
    error = caught.value
    assert error.violations == (
        FieldViolation("patients[0].features[age]", "130 is not from 0 to 120"),
        FieldViolation("patients[2].features[tumor_size]", "500 is not from 0 to 120"),
    )
    assert [(violation.item, violation.feature) for violation in error.violations] == [(0, "age"), (2, "tumor_size")]
    assert "patients[2].features[tumor_size]: 500 is not from 0 to 120" in str(error)


def test_a_violation_of_the_whole_request_belongs_to_no_item(client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.classify(b"one", "relapse")
    assert [(violation.item, violation.feature) for violation in caught.value.violations] == [(None, None)]


def test_an_error_survives_pickling() -> None:
    error = FailedPreconditionError(grpc.StatusCode.FAILED_PRECONDITION, "no manifest", [FieldViolation("a", "b")])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert isinstance(again, FailedPreconditionError)
    assert (again.code, again.message, again.violations) == (error.code, error.message, error.violations)


def test_a_stream_responds_in_order_and_survives_an_invalid_request(client: Client) -> None:
    outcomes = list(client.predict_risk_stream([{"age": 40}, {"age": 130}, [{"age": 1}, {"age": 2}]], "relapse"))
    first, second, third = outcomes
    assert isinstance(first, RiskResponse)
    assert isinstance(second, InvalidArgumentError)
    assert second.violations[0].feature == "age"
    assert isinstance(third, RiskResponse)
    assert len(third.results) == 2


def test_a_stream_of_images(client: Client) -> None:
    good, bad = client.classify_stream([[b"one", b"two"], b"bad"], "lungs", top_k=1)
    assert not isinstance(good, InferenceError)
    assert [len(result.labels) for result in good.results] == [1, 1]
    assert isinstance(bad, InvalidArgumentError)


def test_an_exception_of_the_batches_is_raised_after_the_preceding_responses(client: Client) -> None:
    def batches() -> Iterator[dict[str, float]]:
        yield {"age": 40.0}
        raise RuntimeError("the ward is closed")

    outcomes = client.predict_risk_stream(batches(), "relapse")
    assert isinstance(next(outcomes), RiskResponse)
    with pytest.raises(RuntimeError, match="the ward is closed"):
        next(outcomes)


def test_a_stream_can_be_left_early(client: Client) -> None:
    def forever() -> Iterator[dict[str, float]]:
        while True:
            yield {"age": 40.0}

    outcomes = client.predict_risk_stream(forever(), "relapse")
    assert isinstance(next(outcomes), RiskResponse)
    outcomes.close()
    assert client.models()


def test_health(client: Client) -> None:
    assert client.health() is HealthStatus.SERVING
    assert client.health("medserve.v1.PatientRisk") is HealthStatus.NOT_SERVING
    with pytest.raises(NotFoundError):
        client.health("medserve.v1.Nothing")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.classify(bytes(2000), "lungs"),
        lambda client: client.predict_risk([{}] * 30, "relapse"),
    ],
    ids=["sent", "received"],
)
def test_sent_and_received_messages_are_limited(clinic: str, call: Callable[[Client], object]) -> None:
    with (
        Client(clinic, max_message_bytes=1000) as client,
        pytest.raises(ResourceExhaustedError, match=r"larger than (max|the client)"),
    ):
        call(client)
