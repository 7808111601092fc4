"""The learning rate as a function of the step, and the optimisers by name."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.recipe import TrainingPart
from parfocal.training.optimise import learning_rate, optimiser


@given(epochs=st.integers(1, 30), steps=st.integers(1, 50), warmup=st.integers(0, 5))
def test_cosine_climbs_then_falls_and_stays_within_its_top(epochs: int, steps: int, warmup: int) -> None:
    part = TrainingPart(epochs=epochs, warmup=min(warmup, epochs), learning_rate=0.1, schedule="cosine")
    rates = [learning_rate(step, steps, part) for step in range(epochs * steps)]
    warm = round(part.warmup * steps)
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    if warm < len(rates):
        assert rates[warm] == pytest.approx(0.1)


def test_constant_stays_after_warm_up() -> None:
    part = TrainingPart(epochs=4, warmup=1, learning_rate=0.1, schedule="constant")
    rates = [learning_rate(step, 4, part) for step in range(16)]
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert set(rates[4:]) == {0.1}


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimisers_by_name(name: str, kind: type[torch.optim.Optimizer]) -> None:
    part = TrainingPart(optimiser=name, learning_rate=0.01, weight_decay=0.1)  # type: ignore[arg-type]
    made = optimiser(torch.nn.Linear(2, 2), part)
    assert type(made) is kind
    assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (0.01, 0.1)
