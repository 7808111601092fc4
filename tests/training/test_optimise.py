"""The learning rate as a function of the step, and the optimisers by name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.parts import TrainingConfig
from parfocal.training.optimise import build_optimizer, compute_learning_rate, peak_learning_rate, update_ema


@given(epochs=st.integers(1, 30), steps=st.integers(1, 50), warmup=st.integers(0, 5))
def test_cosine_climbs_then_falls_and_stays_within_its_top(epochs: int, steps: int, warmup: int) -> None:
    part = TrainingConfig(epochs=epochs, warmup=min(warmup, epochs), learning_rate=0.1, schedule="cosine")
    rates = [compute_learning_rate(step, steps, part) for step in range(epochs * steps)]
    warm = round(part.warmup * steps)
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    if warm < len(rates):
        assert rates[warm] == pytest.approx(0.1)


def test_constant_stays_after_warm_up() -> None:
    part = TrainingConfig(epochs=4, warmup=1, learning_rate=0.1, schedule="constant")
    rates = [compute_learning_rate(step, 4, part) for step in range(16)]
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert set(rates[4:]) == {0.1}


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimisers_by_name(name: str, kind: type[torch.optim.Optimizer]) -> None:
    part = TrainingConfig(optimiser=name, learning_rate=0.01, weight_decay=0.1)  # type: ignore[arg-type]
    made = build_optimizer(torch.nn.Linear(2, 2), part)
    assert type(made) is kind
    assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (0.01, 0.1)


SCHEDULES = ("constant", "step", "cosine", "one_cycle", "plateau")


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(epochs=st.integers(1, 30), steps=st.integers(1, 50), warmup=st.floats(0, 5), falls=st.integers(0, 3))
def test_every_schedule_climbs_while_it_warms_up_and_never_after(
    schedule: str, epochs: int, steps: int, warmup: float, falls: int
) -> None:
    part = TrainingConfig(epochs=epochs, warmup=min(warmup, epochs), learning_rate=0.1, schedule=schedule)  # type: ignore[arg-type]
    rates = np.array([compute_learning_rate(step, steps, part, falls) for step in range(epochs * steps)])
    assert (rates > 0).all()
    assert (rates <= 0.1 + 1e-12).all()
    top = rates.argmax()
    assert (np.diff(rates[: top + 1]) >= 0).all()
    assert (np.diff(rates[top:]) <= 1e-12).all()


@pytest.mark.parametrize(("epochs", "steps", "warmup"), [(10, 10, 0), (4, 25, 1), (3, 7, 0.9)])
def test_one_cycle_is_pytorchs(epochs: int, steps: int, warmup: float) -> None:
    part = TrainingConfig(epochs=epochs, warmup=warmup, learning_rate=0.4, schedule="one_cycle")
    optimise = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.4)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimise, 0.4, total_steps=epochs * steps, pct_start=warmup / epochs or 0.3, cycle_momentum=False
    )
    for step in range(epochs * steps):
        assert compute_learning_rate(step, steps, part) == pytest.approx(optimise.param_groups[0]["lr"])
        optimise.step()
        theirs.step()


def test_steps_fall_every_so_many_epochs_and_plateaus_when_told() -> None:
    part = TrainingConfig(epochs=7, learning_rate=1, schedule="step", fall=0.5, fall_after=3)
    assert [compute_learning_rate(epoch * 10, 10, part) for epoch in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    part = TrainingConfig(epochs=7, learning_rate=1, schedule="plateau", fall=0.5)
    assert [compute_learning_rate(30, 10, part, falls) for falls in range(3)] == [1, 0.5, 0.25]


def test_the_rate_is_scaled_with_the_images_of_a_step() -> None:
    def scaled(rule: str) -> float:
        return peak_learning_rate(TrainingConfig(learning_rate=0.1, batch=64, accumulate=2, scale_rate=rule))  # type: ignore[arg-type]

    assert [scaled(rule) for rule in ("none", "linear", "square_root")] == pytest.approx([0.1, 0.4, 0.2])
    part = TrainingConfig(learning_rate=0.1, batch=8, scale_rate="linear", schedule="constant")
    assert compute_learning_rate(5, 10, part) == pytest.approx(0.025)


def test_norms_and_biases_decay_only_when_all_does() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    (everything,) = build_optimizer(network, TrainingConfig(weight_decay=0.1)).param_groups
    assert len(everything["params"]) == 4
    weights, others = build_optimizer(network, TrainingConfig(weight_decay=0.1, decay="weights")).param_groups
    assert [tuple(one.shape) for one in weights["params"]] == [(4, 3, 3, 3)]
    assert (weights["weight_decay"], others["weight_decay"], len(others["params"])) == (0.1, 0, 3)


def test_the_average_follows_the_weights_faster_at_the_start() -> None:
    network, average = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(network.weight, 3)
    network(torch.randn(4, 2))
    update_ema(average, network, 0.9, step=0)
    assert average.weight.tolist() == pytest.approx([0.1 * 1 + 0.9 * 3] * 2)
    torch.nn.init.constant_(average.weight, 1)
    update_ema(average, network, 0.9, step=1000)
    assert average.weight.tolist() == pytest.approx([0.9 * 1 + 0.1 * 3] * 2)
    assert average.num_batches_tracked == network.num_batches_tracked == 1
    assert network.weight.tolist() == [3, 3]
