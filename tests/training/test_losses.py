import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from medserve_training.losses import binary_cross_entropy, cross_entropy, hazard_targets, logistic_hazard

positive = st.floats(0.01, 20, allow_nan=False)


@given(st.lists(st.tuples(positive, st.booleans(), st.lists(st.floats(-4, 4), min_size=5, max_size=5)), min_size=1))
def test_logistic_hazard_is_minus_the_log_of_the_likelihood(patients: list[tuple[float, bool, list[float]]]) -> None:
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


def test_hazard_targets_at_the_edges() -> None:
    events, at_risk = hazard_targets(
        np.array([2.0, 2.1, 9.0, 3.0, 2.9]), np.array([True, True, True, False, False]), 2, 3
    )
    assert events.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    # Censored in the middle of the second interval counts there, a little earlier does not.
    assert at_risk.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0]]


def test_classification_losses_follow_their_formulas() -> None:
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    probabilities = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(cross_entropy(logits, torch.tensor([0, 0])), -np.log(probabilities[:, 0]), rtol=1e-6)
    score = expit(logits.numpy()[:, 0])
    expected = -np.log([score[0], 1 - score[1]])
    np.testing.assert_allclose(binary_cross_entropy(logits[:, :1], torch.tensor([1.0, 0.0])), expected, rtol=1e-6)
