from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from medserve_training.data.splits import Splits
from medserve_training.recipes.training_settings import Training
from medserve_training.training.train import Change, Epoch, seed_everything, train, train_members


def settings(**changed: Any) -> Training:  # noqa: ANN401 - of any type
    start = {"epochs": 30, "batch_size": 20, "learning_rate": 0.1, "loss": "cross-entropy"}
    return Training(**{**start, **changed})


def run(
    network: nn.Module,
    data: Splits[TensorDataset],
    change: Change | None = None,
    **changed: Any,  # noqa: ANN401
) -> list[Epoch]:
    seed_everything(0)
    return train(network, data, settings(**changed), Fabric(accelerator="cpu"), Console(quiet=True), change)


def alike(labels: Tensor) -> Splits[TensorDataset]:
    """Uninformative rows, from which a model learns only the class frequencies."""
    rows = TensorDataset(torch.zeros(len(labels), 1), labels)
    return Splits(rows, rows, rows)


@torch.no_grad()
def probability(network: nn.Module) -> float:
    return float(torch.softmax(network(torch.zeros(1, 1)), dim=1)[0, 1])


RARE = torch.tensor([0] * 90 + [1] * 10)


@pytest.mark.parametrize(("balance", "expected"), [("none", 0.1), ("class-weights", 0.5), ("sampling", 0.5)])
def test_balancing_makes_a_rare_class_as_likely_as_a_common_one(balance: str, expected: float) -> None:
    network = nn.Linear(1, 2)
    run(network, alike(RARE), balance=balance, schedule="cosine")
    assert probability(network) == pytest.approx(expected, abs=0.04)


def test_label_smoothing_reduces_confidence() -> None:
    network = nn.Linear(1, 2)
    run(network, alike(torch.ones(100, dtype=torch.int64)), label_smoothing=0.2, schedule="cosine", epochs=60)
    assert probability(network) == pytest.approx(0.9, abs=0.01)


def noisy(number: int = 200) -> Splits[TensorDataset]:
    torch.manual_seed(1)
    rows = torch.randn(number, 4)
    labels = (rows[:, 0] + torch.randn(number) > 0).long()
    return Splits(TensorDataset(rows, labels), TensorDataset(rows[:50], labels[:50]), TensorDataset(rows, labels))


def linear() -> nn.Linear:
    network = nn.Linear(4, 2)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    return network


@pytest.mark.parametrize(("l1", "l2"), [(0.1, 0.0), (0.0, 0.1)])
def test_penalties_shrink_the_weights(l1: float, l2: float) -> None:
    plain, held = linear(), linear()
    run(plain, noisy(), epochs=10)
    run(held, noisy(), epochs=10, l1=l1, l2=l2)
    assert held.weight.abs().sum() < 0.8 * plain.weight.abs().sum()


def test_l1_leaves_uninformative_weights_at_zero() -> None:
    network = linear()
    run(network, noisy(), l1=0.1, schedule="cosine")
    assert network.weight[:, 0].abs().min() > 0.05
    assert network.weight[:, 1:].abs().max() < 0.02


def test_gradient_norms_are_logged_before_clipping() -> None:
    changed: dict[str, Any] = {"epochs": 1, "batch_size": 200, "optimizer": "sgd"}
    free, clipped = linear(), linear()
    (first,) = run(free, noisy(), **changed)
    (second,) = run(clipped, noisy(), gradient_clip=0.01, **changed)
    inputs, labels = noisy().train.tensors
    start = linear()
    loss = nn.functional.cross_entropy(start(inputs), labels)
    parts = torch.autograd.grad(loss, list(start.parameters()))
    norm = torch.cat([part.flatten() for part in parts]).norm().item()
    for epoch in (first, second):
        assert epoch.gradient_norm == epoch.largest_gradient_norm == pytest.approx(norm, rel=1e-4)
    moved = [torch.cat([p.detach().flatten() for p in network.parameters()]).norm() for network in (free, clipped)]
    assert moved[0].item() == pytest.approx(0.1 * norm, rel=1e-4)
    assert moved[1].item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_the_averaged_weights_become_the_model() -> None:
    plain, averaged = linear(), linear()
    run(plain, noisy(), epochs=1, batch_size=20)
    history = run(averaged, noisy(), epochs=1, batch_size=20, weight_average=0.99)
    # It lags behind on a path away from 0.
    assert 0 < averaged.weight.norm() < plain.weight.norm()
    inputs, labels = noisy().validation.tensors
    loss = nn.functional.cross_entropy(averaged(inputs), labels).item()
    assert history[-1].validation_loss == pytest.approx(loss, rel=1e-5)


def test_only_training_input_is_augmented() -> None:
    seen: list[int] = []

    def blank(inputs: Tensor) -> Tensor:
        seen.append(len(inputs))
        return torch.zeros_like(inputs)

    network = linear()
    run(network, noisy(), blank, epochs=1, batch_size=50)
    assert seen == [50] * 4
    assert not network.weight.any()


def test_members_have_their_own_seeds_and_the_first_has_that_of_a_single_model() -> None:
    def members(number: int) -> tuple[list[nn.Linear], list[Epoch]]:
        chosen = settings(epochs=2, members=number)
        fabric, console = Fabric(accelerator="cpu"), Console(quiet=True)
        return train_members(lambda: nn.Linear(4, 2), noisy(), chosen, 7, fabric, console)

    (alone,), _ = members(1)
    several, history = members(3)
    assert [(epoch.member, epoch.number) for epoch in history] == [(m, n) for m in range(3) for n in (1, 2)]
    torch.testing.assert_close(several[0].weight, alone.weight, rtol=0, atol=0)
    assert not torch.equal(several[0].weight, several[1].weight)
    assert not torch.equal(several[1].weight, several[2].weight)
