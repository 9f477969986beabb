import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from medserve_training.recipes.training_settings import LossName
from medserve_training.training.losses import (
    LOSSES,
    binary_cross_entropy,
    class_weights,
    cox,
    cross_entropy,
    hazard_targets,
    logistic_hazard,
    mean_absolute_error,
    smoothed,
)

positive = st.floats(0.01, 20, allow_nan=False)


@settings(deadline=None)
@given(st.lists(st.tuples(positive, st.booleans(), st.lists(st.floats(-4, 4), min_size=5, max_size=5)), min_size=1))
def test_logistic_hazard_is_the_negative_log_likelihood(patients: list[tuple[float, bool, list[float]]]) -> None:
    interval, intervals = 2.0, 5
    likelihoods = []
    for time, event, logits in patients:
        likelihood = 1.0
        for index in range(intervals):
            hazard, start, end = expit(logits[index]), index * interval, (index + 1) * interval
            if event and start < time <= end:
                likelihood *= hazard
            elif time > end or (not event and time >= start + interval / 2):
                likelihood *= 1 - hazard
        likelihoods.append(likelihood)
    expected = -np.log(likelihoods)
    seen = np.array([time for time, _, _ in patients]), np.array([event for _, event, _ in patients])
    targets = hazard_targets(*seen, interval, intervals)
    found = logistic_hazard(torch.tensor([logits for _, _, logits in patients]), *targets)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_cox_is_the_negative_log_partial_likelihood_with_ties() -> None:
    random = np.random.default_rng(0)
    times, events = random.integers(1, 8, 40).astype(float), random.random(40) < 0.7
    risks = random.normal(size=40)
    terms = [
        np.log(np.exp(risks[times >= time]).sum()) - risk if event else 0.0
        for time, event, risk in zip(times, events, risks, strict=True)
    ]
    found = cox(torch.tensor(risks)[:, None], torch.tensor(times), torch.tensor(events).double())
    np.testing.assert_allclose(found, terms, rtol=1e-9)


def test_cox_is_minimal_at_the_solution_of_scikit_survival() -> None:
    random = np.random.default_rng(1)
    columns = random.normal(size=(120, 3))
    times, events = random.exponential(np.exp(-columns[:, 0])), random.random(120) < 0.7
    fitted = CoxPHSurvivalAnalysis(ties="breslow", tol=1e-12).fit(columns, Surv.from_arrays(events, times)).coef_
    weights = torch.tensor(fitted, requires_grad=True)
    loss = cox((torch.tensor(columns) @ weights)[:, None], torch.tensor(times), torch.tensor(events).double()).mean()
    (gradient,) = torch.autograd.grad(loss, [weights])
    assert gradient.abs().max().item() < 1e-6


def test_hazard_targets_at_the_edges() -> None:
    events, at_risk = hazard_targets(
        np.array([2.0, 2.1, 9.0, 3.0, 2.9]), np.array([True, True, True, False, False]), 2, 3
    )
    assert events.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    # Censoring at the middle of the second interval counts there, slightly earlier does not.
    assert at_risk.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0]]


def test_classification_losses_follow_their_formulas() -> None:
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    probabilities = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(cross_entropy(logits, torch.tensor([0, 0])), -np.log(probabilities[:, 0]), rtol=1e-6)
    score = expit(logits.numpy()[:, 0])
    expected = -np.log([score[0], 1 - score[1]])
    np.testing.assert_allclose(binary_cross_entropy(logits[:, :1], torch.tensor([1.0, 0.0])), expected, rtol=1e-6)


def test_mean_absolute_error_is_computed_on_probabilities() -> None:
    logits, labels = torch.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, 1.0]]), torch.tensor([0, 2])
    expected = np.abs(softmax(logits.numpy(), axis=1) - np.eye(3)[labels]).mean(axis=1)
    np.testing.assert_allclose(mean_absolute_error(logits, labels), expected, rtol=1e-6)


def test_two_logits_and_their_difference_have_the_same_binary_loss() -> None:
    logits, labels = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    difference = logits[:, 1:] - logits[:, :1]
    expected = cross_entropy(logits, labels)
    torch.testing.assert_close(binary_cross_entropy(logits, labels), expected)
    torch.testing.assert_close(binary_cross_entropy(difference, labels.float()), expected)


@pytest.mark.parametrize("name", ["cross-entropy", "binary-cross-entropy"])
def test_smoothing_distributes_a_fraction_of_the_target(name: LossName) -> None:
    logits, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    expected = 0.9 * LOSSES[name](logits, labels) + 0.05 * (
        LOSSES[name](logits, labels) + LOSSES[name](logits, 1 - labels)
    )
    torch.testing.assert_close(smoothed(name, 0.1)(logits, labels), expected)


def test_class_weights_make_all_classes_count_equally() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = class_weights(labels)
    assert weights[labels].sum().item() == pytest.approx(10)
    for label in range(3):
        assert weights[labels][labels == label].sum().item() == pytest.approx(10 / 3)
