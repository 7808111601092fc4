"""One temperature for all images, fitted where the truth is likeliest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.evaluation.calibration import log_losses
from parfocal.evaluation.temperature import apply_temperature, fit_temperature


def _honest(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities and a truth that follows them."""
    dice = np.random.default_rng(seed)
    probabilities = dice.dirichlet(np.ones(classes), count)
    return (dice.random(count)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1), probabilities


@given(seed=st.integers(0, 1000), temperature=st.floats(0.2, 5))
def test_the_order_of_the_classes_stays_and_rows_sum_to_1(seed: int, temperature: float) -> None:
    _, probabilities = _honest(seed, 20, 4)
    found = apply_temperature(probabilities, temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(apply_temperature(found, 1 / temperature), probabilities, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.4, 1, 2.5])
def test_what_was_made_too_certain_is_made_honest_again(temperature: float) -> None:
    truth, probabilities = _honest(1, 4000, 3)
    assert fit_temperature(truth, apply_temperature(probabilities, 1 / temperature)) == pytest.approx(
        temperature, rel=0.06
    )


@given(seed=st.integers(0, 1000))
def test_no_temperature_near_it_makes_the_truth_likelier(seed: int) -> None:
    truth, probabilities = _honest(seed, 800, 3)
    found = fit_temperature(truth, probabilities)
    losses = [log_losses(truth, apply_temperature(probabilities, found * by)).mean() for by in (0.8, 1, 1.25)]
    assert losses[1] == min(losses)


def test_a_few_right_answers_are_no_reason_for_certainty() -> None:
    truth = np.arange(8) % 2
    said = np.where(np.eye(2)[truth] == 1, 0.8, 0.2)
    assert apply_temperature(said, fit_temperature(truth, said)).max() < 0.99


def test_probabilities_of_0_stay_numbers() -> None:
    assert np.isfinite(apply_temperature(np.eye(3), 0.05)).all()
    assert np.isfinite(fit_temperature(np.array([1, 1]), np.eye(2)))
