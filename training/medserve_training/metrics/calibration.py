"""Post-hoc calibration of probabilities: none, temperature scaling or isotonic regression, chosen on validation.

The data at deployment rarely resembles the validation split: the prevalence differs, and the images differ more from
those of training. A method that overfits the validation split makes the model overconfident there. Each method is
therefore assessed by its worst calibration error over several prevalences, with the rows unchanged and with harder
ones, and has to be clearly better than a simpler method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.metrics.classification import calibration_error

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# Factor by which the odds of each class are divided and multiplied in turn.
_ODDS = 3.0
# Minimum improvement over a simpler method, since simulated shifts do not predict the shift at another hospital.
_GAIN = 0.015
_FOLDS = 10
_SEED = 0


class Uncalibrated(nn.Module):
    """Identity: leaves probabilities [n, classes] unchanged."""

    def forward(self, probabilities: Tensor) -> Tensor:
        """Returns the probabilities."""
        return probabilities


class Temperature(nn.Module):
    """Temperature scaling (Guo et al. 2017): probabilities [n, classes] to the power of 1 / T, renormalized."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, probabilities: Tensor) -> Tensor:
        """Divides the log probabilities by the temperature."""
        return torch.softmax(torch.log(probabilities.clamp_min(1e-12)) / self.temperature, dim=1)


class Isotonic(nn.Module):
    """Isotonic regression (Zadrozny & Elkan 2002): maps the second of two probabilities, piecewise linearly.

    Args:
        knots: Knots of the function, increasing, [k].
        values: Values at the knots, [k].
    """

    def __init__(self, knots: Floats, values: Floats) -> None:
        super().__init__()
        widths = np.diff(knots)
        self.first = float(values[0])
        self.starts: Tensor
        self.widths: Tensor
        self.slopes: Tensor
        self.register_buffer("starts", torch.tensor(knots[:-1], dtype=torch.float32))
        self.register_buffer("widths", torch.tensor(widths, dtype=torch.float32))
        self.register_buffer("slopes", torch.tensor(np.diff(values) / widths, dtype=torch.float32))

    def forward(self, probabilities: Tensor) -> Tensor:
        """Sums the increments of the pieces up to the probability."""
        along = torch.minimum((probabilities[:, 1:] - self.starts).clamp_min(0), self.widths)
        second = (self.first + (along * self.slopes).sum(dim=1, keepdim=True)).clamp(0, 1)
        return torch.cat([1 - second, second], dim=1)


def fit_calibration(method: str, probabilities: Floats, labels: Labels) -> nn.Module:
    """Fits one method.

    Args:
        method: "none", "temperature" or, with two classes, "isotonic".
        probabilities: [n, classes].
        labels: [n].
    """
    match method:
        case "temperature":
            logarithms = np.log(np.clip(probabilities, 1e-12, 1))

            def loss(log_temperature: float) -> float:
                scaled = logarithms / np.exp(log_temperature)
                return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))

            return Temperature(float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)))
        case "isotonic":
            curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(probabilities[:, 1], labels)
            return Isotonic(curve.X_thresholds_, curve.y_thresholds_)
        case _:
            return Uncalibrated()


def calibrate(calibration: nn.Module, probabilities: Floats) -> Floats:
    """Applies a calibration to probabilities, [n, classes]."""
    with torch.no_grad():
        result: NDArray[np.float32] = calibration(torch.tensor(probabilities, dtype=torch.float32)).numpy()
    return result.astype(np.float64)


@dataclass(frozen=True)
class Judged:
    """One method, cross-fitted on validation: its calibration error there, and the worst one under shift."""

    method: str
    error: float
    worst_error: float


def judge(method: str, rows: Floats, labels: Labels, harder: Sequence[Floats] = ()) -> Judged:
    """Measures the calibration error of a method by ten-fold cross-fitting.

    Args:
        method: As for `fit_calibration`.
        rows: Probabilities, [n, classes].
        labels: [n].
        harder: Probabilities for harder versions of the same rows, on which the method is only evaluated.
    """
    fitted = [np.empty_like(rows) for _ in (rows, *harder)]
    folds = StratifiedKFold(min(_FOLDS, int(np.bincount(labels).min())), shuffle=True, random_state=_SEED)
    for train, test in folds.split(rows, labels):
        calibration = fit_calibration(method, rows[train], labels[train])
        for before, after in zip((rows, *harder), fitted, strict=True):
            after[test] = calibrate(calibration, before[test])
    errors = _errors_under_shift(fitted[0], labels)
    if harder:
        errors += _errors_under_shift(np.concatenate(fitted[1:]), np.tile(labels, len(harder)))
    return Judged(method, errors[0], max(errors))


def _errors_under_shift(probabilities: Floats, labels: Labels) -> list[float]:
    return [calibration_error(probabilities, labels, weights=weights) for weights in prevalence_weights(labels)]


def prevalence_weights(labels: Labels) -> list[Floats]:
    """Returns weights of the rows: all 1, then those that divide and multiply the odds of each class in turn by 3."""
    shifts = [np.where(labels == label, factor, 1.0) for label in np.unique(labels) for factor in (1 / _ODDS, _ODDS)]
    return [np.ones(len(labels)), *shifts]


def choose_calibration(
    methods: Sequence[str], rows: Floats, labels: Labels, harder: Sequence[Floats] = ()
) -> tuple[nn.Module, pb.Calibration | None, list[Judged]]:
    """Chooses a method on validation data and fits it there.

    Args:
        methods: Candidates, the simplest first.
        rows: Probabilities, [n, classes].
        labels: [n].
        harder: As for `judge`.

    Returns:
        The fitted method, its entry in the manifest (None without calibration), and the errors of all methods.
    """
    judged = [judge(method, rows, labels, harder) for method in methods]
    best = judged[0]
    for entry in judged[1:]:
        if entry.worst_error < best.worst_error - _GAIN:
            best = entry
    calibration = fit_calibration(best.method, rows, labels)
    if best.method == "none":
        return calibration, None, judged
    found = pb.Calibration(
        method=best.method,
        chosen_on="validation",
        error_before=judge("none", rows, labels).error,
        error_after=best.error,
        reason=_reason(judged),
    )
    return calibration, found, judged


def _reason(judged: Sequence[Judged]) -> str:
    errors = ", ".join(f"{entry.method} {entry.worst_error:.3f}" for entry in judged)
    return f"worst error under shift, with each class's odds divided and multiplied by {_ODDS:g}: {errors}"
