from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_expit
from torch import Tensor

from medserve_training.recipes.segmentation_settings import SegmentationLoss
from medserve_training.training.segmentation.losses import boundary, combined, cross_entropy, dice, distance, focal

Floats = NDArray[np.float64]
SHAPE = (3, 2, 5, 7)

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, SHAPE)
MASKS = (RANDOM.random(SHAPE) < 0.3).astype(np.float64)
SIGNED = RANDOM.normal(0, 0.2, SHAPE)
DISTANCES = MASKS * RANDOM.random(SHAPE)
DISTANCE_LOGITS = RANDOM.normal(0, 2, SHAPE)


def by_row(formula: Callable[[int], float]) -> Floats:
    return np.array([formula(row) for row in range(SHAPE[0])])


def tensor(array: Floats) -> Tensor:
    return torch.tensor(array, dtype=torch.float32)


def expected_cross_entropy(row: int) -> float:
    chosen = np.where(MASKS[row] == 1, log_expit(LOGITS[row]), log_expit(-LOGITS[row]))
    return float(-chosen.mean())


def expected_focal(row: int) -> float:
    right = np.where(MASKS[row] == 1, expit(LOGITS[row]), 1 - expit(LOGITS[row]))
    return float((-((1 - right) ** 2) * np.log(right)).mean())


def expected_dice(row: int) -> float:
    found = expit(LOGITS[row])
    overlaps = []
    for one, mask in zip(found, MASKS[row], strict=True):
        overlaps.append((2 * (one * mask).sum() + 1) / ((one**2).sum() + (mask**2).sum() + 1))
    return float(1 - np.mean(overlaps))


def expected_boundary(row: int) -> float:
    return float((expit(LOGITS[row]) * SIGNED[row]).mean())


def expected_distance(row: int) -> float:
    errors = np.abs(expit(DISTANCE_LOGITS[row]) - DISTANCES[row])
    return float(errors[MASKS[row] == 1].mean() + errors[MASKS[row] == 0].mean())


FOUND = {
    "cross_entropy": lambda: cross_entropy(tensor(LOGITS), tensor(MASKS)),
    "focal": lambda: focal(tensor(LOGITS), tensor(MASKS)),
    "dice": lambda: dice(tensor(LOGITS), tensor(MASKS)),
    "boundary": lambda: boundary(tensor(LOGITS), tensor(SIGNED)),
    "distance": lambda: distance(tensor(DISTANCE_LOGITS), tensor(DISTANCES), tensor(MASKS)),
}
EXPECTED = {
    "cross_entropy": expected_cross_entropy,
    "focal": expected_focal,
    "dice": expected_dice,
    "boundary": expected_boundary,
    "distance": expected_distance,
}


@pytest.mark.parametrize("name", FOUND)
def test_a_loss_is_that_of_its_formula(name: str) -> None:
    np.testing.assert_allclose(FOUND[name](), by_row(EXPECTED[name]), rtol=1e-5)


def test_the_combined_loss_is_the_weighted_sum_of_its_terms() -> None:
    weights = {"cross_entropy": 0.5, "focal": 0.25, "dice": 2.0, "boundary": 3.0, "distance": 1.5}
    maps = torch.cat([tensor(LOGITS), tensor(DISTANCE_LOGITS)], dim=1)
    found = combined(SegmentationLoss(**weights), maps, tensor(MASKS), tensor(DISTANCES), tensor(SIGNED))
    expected = sum(weight * by_row(EXPECTED[name]) for name, weight in weights.items())
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_weight_of_zero_leaves_a_term_out() -> None:
    # Without the logits of distances, its term could not be computed.
    found = combined(SegmentationLoss(), tensor(LOGITS), tensor(MASKS), tensor(DISTANCES), tensor(SIGNED))
    np.testing.assert_allclose(found, by_row(expected_cross_entropy), rtol=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice])
def test_a_perfect_answer_has_almost_no_loss_and_its_opposite_much(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    masks = tensor(MASKS)
    assert (loss(40 * masks - 20, masks) < 1e-6).all()
    assert (loss(20 - 40 * masks, masks) > 0.9).all()


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice", "distance"])
def test_an_empty_mask_has_a_finite_loss_and_gradient(name: str) -> None:
    maps = tensor(np.concatenate([LOGITS, DISTANCE_LOGITS], axis=1)).requires_grad_()
    empty = torch.zeros(SHAPE)
    weights = SegmentationLoss(**{"cross_entropy": 0.0, name: 1.0})
    loss = combined(weights, maps, empty, empty, empty).sum()
    (gradient,) = torch.autograd.grad(loss, maps)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
