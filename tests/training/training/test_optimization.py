import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medserve_training.recipes.training_settings import Training
from medserve_training.training.optimization import clip, make_optimizer, make_schedule, moving_average, penalty


def settings(**changed: Any) -> Training:  # noqa: ANN401 - of any type
    return Training(**{"epochs": 1, "batch_size": 8, "learning_rate": 0.1, "loss": "cross-entropy", **changed})


def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def step(network: nn.Linear, optimizer: torch.optim.Optimizer, gradient: float = 1.0) -> Tensor:
    """Makes one step along a constant gradient; returns the change of the weights."""
    before = network.weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return network.weight.detach() - before


def test_sgd_steps_against_the_gradient_by_the_learning_rate() -> None:
    network = model()
    optimizer = make_optimizer(network, settings(optimizer="sgd"))
    for _ in range(2):
        torch.testing.assert_close(step(network, optimizer), torch.full((2, 3), -0.1))


def test_momentum_keeps_0_9_of_the_previous_step() -> None:
    network = model()
    optimizer = make_optimizer(network, settings(optimizer="momentum"))
    torch.testing.assert_close(step(network, optimizer), torch.full((2, 3), -0.1))
    torch.testing.assert_close(step(network, optimizer), torch.full((2, 3), -0.1 - 0.09))


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("gradient", [1e-3, 10.0])
def test_adams_first_step_has_the_size_of_the_learning_rate_for_any_gradient(name: str, gradient: float) -> None:
    network = model()
    change = step(network, make_optimizer(network, settings(optimizer=name)), gradient)
    torch.testing.assert_close(change, torch.full((2, 3), -0.1), rtol=1e-3, atol=0)


def test_weight_decay_shrinks_weights_but_not_biases() -> None:
    network = model()
    before, bias = network.weight.detach().clone(), network.bias.detach().clone()
    step(network, make_optimizer(network, settings(optimizer="adamw", weight_decay=0.5)), gradient=0.0)
    torch.testing.assert_close(network.weight.detach(), before * (1 - 0.1 * 0.5))
    torch.testing.assert_close(network.bias.detach(), bias)


def rates(steps: int = 100, **changed: Any) -> list[float]:  # noqa: ANN401 - of any type
    optimizer = make_optimizer(model(), settings(**changed))
    schedule = make_schedule(optimizer, settings(**changed), steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(found) < steps else None
    return found


def test_schedules_have_their_documented_course() -> None:
    assert rates() == [0.1] * 100
    assert rates(warmup=0.1) == pytest.approx([0.01 * step for step in range(1, 11)] + [0.1] * 90)
    cosine = rates(schedule="cosine", warmup=0.2)
    assert cosine[19] == pytest.approx(0.1)
    assert cosine[60] == pytest.approx(0.05)
    assert cosine[20:] == sorted(cosine[20:], reverse=True)
    assert cosine[-1] < 0.001
    for warmup, peak in ((0.0, 30), (0.6, 60)):
        cycle = rates(schedule="one-cycle", warmup=warmup)
        assert max(cycle) == pytest.approx(0.1)
        assert cycle.index(max(cycle)) == pytest.approx(peak, abs=1)
        assert cycle[0] == pytest.approx(0.1 / 25)
        assert cycle[-1] < 1e-5


def test_l1_and_l2_exclude_biases() -> None:
    network = model()
    weight = network.weight.detach()
    assert penalty(network, settings()) == 0
    torch.testing.assert_close(penalty(network, settings(l1=0.3)), 0.3 * weight.abs().sum(), check_dtype=False)
    both = penalty(network, settings(l1=0.3, l2=0.2))
    torch.testing.assert_close(both, 0.3 * weight.abs().sum() + 0.2 * weight.square().sum(), check_dtype=False)


def test_clipping_reduces_large_gradients_only() -> None:
    for largest, left in ((0.5, 0.5), (10.0, 3.0), (None, 3.0)):
        parameters = [torch.zeros(3, requires_grad=True), torch.zeros(6, requires_grad=True)]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        assert clip(parameters, largest) == pytest.approx(3)
        norm = math.hypot(*(float(value) for parameter in parameters for value in parameter.grad))  # type: ignore[union-attr]
        assert norm == pytest.approx(left, rel=1e-4)


def test_the_moving_average_forgets_its_initial_value_and_then_follows_slowly() -> None:
    network = model()
    average = moving_average(network, decay=0.8)
    kept: list[float] = []
    expected = 0.0
    for number in range(100):
        nn.init.constant_(network.weight, number)
        average.update_parameters(network)
        decay = min(0.8, (1 + number) / (10 + number))
        expected = number if number == 0 else decay * expected + (1 - decay) * number
        kept.append(average.module.state_dict()["weight"][0, 0].item())
        assert kept[-1] == pytest.approx(expected, rel=1e-5)
    # A lag of decay / (1 - decay) steps.
    assert kept[-1] == pytest.approx(99 - 4, abs=0.01)
