import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from torch import nn

from medserve_training.export.inference import open_session
from medserve_training.export.onnx_file import to_onnx
from medserve_training.metrics.calibration import (
    Isotonic,
    Temperature,
    calibrate,
    choose_calibration,
    fit_calibration,
    prevalence_weights,
)
from medserve_training.metrics.classification import calibration_error

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
METHODS = ("none", "temperature", "isotonic")


def drawn(number: int, sharpened: float, spread: float = 2.0) -> tuple[Floats, Labels]:
    """Two-class probabilities with logits `sharpened` times the true ones, and labels sampled from the true ones."""
    random = np.random.default_rng(0)
    logits = random.normal(0, spread, number)
    labels = (random.random(number) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    second = 1 / (1 + np.exp(-logits * sharpened))
    return np.stack([1 - second, second], axis=1), labels


def test_the_temperature_is_found() -> None:
    probabilities, labels = drawn(20000, sharpened=2.5)
    calibration = fit_calibration("temperature", probabilities, labels)
    assert isinstance(calibration, Temperature)
    assert calibration.temperature == pytest.approx(2.5, rel=0.05)
    truth, _ = drawn(20000, sharpened=1)
    np.testing.assert_allclose(calibrate(calibration, probabilities), truth, atol=0.02)


def test_a_temperature_keeps_the_order_of_several_classes() -> None:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1, 1], 50)
    calibrated = calibrate(Temperature(2.0), probabilities)
    np.testing.assert_array_equal(calibrated.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, atol=1e-6)
    assert (calibrated.max(axis=1) < probabilities.max(axis=1)).all()


def test_the_isotonic_curve_matches_scikit_learn() -> None:
    probabilities, labels = drawn(400, sharpened=3)
    expected = IsotonicRegression(out_of_bounds="clip").fit(probabilities[:, 1], labels)
    calibration = fit_calibration("isotonic", probabilities, labels)
    unseen = np.linspace(0, 1, 500)
    found = calibrate(calibration, np.stack([1 - unseen, unseen], axis=1))
    np.testing.assert_allclose(found[:, 1], expected.predict(unseen), atol=2e-4)
    assert (np.diff(found[:, 1]) >= -1e-6).all()


def test_calibrated_probabilities_are_unchanged() -> None:
    calibration, described, judged = choose_calibration(METHODS, *drawn(3000, sharpened=1))
    assert described is None
    assert [entry.method for entry in judged] == list(METHODS)
    probabilities, _ = drawn(10, sharpened=1)
    np.testing.assert_allclose(calibrate(calibration, probabilities), probabilities, rtol=1e-6)


def test_overconfident_probabilities_get_a_temperature_and_a_lower_error() -> None:
    probabilities, labels = drawn(3000, sharpened=4)
    calibration, described, judged = choose_calibration(METHODS, probabilities, labels)
    assert described is not None
    assert isinstance(calibration, Temperature)
    assert (described.method, described.chosen_on) == ("temperature", "validation")
    assert described.error_before == pytest.approx(calibration_error(probabilities, labels), abs=1e-6)
    assert described.error_after < 0.03 < described.error_before
    assert "temperature 0." in described.reason
    assert judged[0].error == described.error_before


def test_a_method_that_fails_on_harder_rows_is_not_selected() -> None:
    probabilities, labels = drawn(3000, sharpened=0.5)
    assert choose_calibration(METHODS[:2], probabilities, labels)[1] is not None
    # The model is underconfident on validation, but well calibrated where the logits are less informative.
    harder, _ = drawn(3000, sharpened=0.5)
    wrong = np.random.default_rng(1).random(3000) < 0.3
    harder[wrong] = harder[wrong][:, ::-1]
    assert choose_calibration(METHODS[:2], probabilities, labels, [harder])[1] is None


def test_prevalence_weights_triple_and_divide_the_odds_of_each_class() -> None:
    labels = np.array([1] * 60 + [0] * 40)
    plain, *shifted = prevalence_weights(labels)
    assert (plain == 1).all()
    odds = [weights[labels == 1].sum() / weights[labels == 0].sum() for weights in shifted]
    assert sorted(odds) == pytest.approx([0.5, 0.5, 4.5, 4.5])


def test_weights_are_equivalent_to_repeated_rows() -> None:
    probabilities, labels = drawn(50, sharpened=2)
    repeats = np.arange(50) % 3
    repeated = calibration_error(np.repeat(probabilities, repeats, axis=0), np.repeat(labels, repeats))
    assert calibration_error(probabilities, labels, weights=repeats.astype(float)) == pytest.approx(repeated)


@pytest.mark.parametrize(
    "calibration", [Temperature(0.7), Isotonic(np.array([0.1, 0.4, 0.9]), np.array([0.0, 0.5, 1]))]
)
def test_an_exported_method_gives_the_same_result(calibration: nn.Module) -> None:
    probabilities, _ = drawn(30, sharpened=2)
    rows = torch.tensor(probabilities, dtype=torch.float32)
    session = open_session(to_onnx(calibration, rows[:2], ["calibrated"]).SerializeToString())
    (found,) = session.run(None, {"probabilities": rows.numpy()})
    np.testing.assert_allclose(found, calibrate(calibration, probabilities), atol=1e-6)
