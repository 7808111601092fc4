"""Predictions to judge: drawn at random, with ties and absent classes, or made from what is wanted."""

import numpy as np
from hypothesis import strategies as st

from parfocal.evaluation.predictions import Predictions


def make_predictions(
    truth: list[int] | np.ndarray, probabilities: np.ndarray, groups: list[str] | None = None
) -> Predictions:
    """Return predictions with numbered ids and class names."""
    ids = tuple(map(str, range(len(truth))))
    names = tuple(f"class {number}" for number in range(probabilities.shape[1]))
    return Predictions(ids, tuple(groups) if groups else ids, np.array(truth), probabilities, names)


@st.composite
def random_predictions(draw: st.DrawFn, classes: tuple[int, int] = (2, 5), least: int = 1) -> Predictions:
    """Draw predictions of any quality: few images or many, classes absent from truth or answers, tied scores."""
    several = draw(st.integers(*classes))
    dice = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(least, 60))
    there = dice.permutation(several)[: draw(st.integers(1, several))]
    said = dice.permutation(several)[: draw(st.integers(1, several))]
    truth = dice.choice(there, count)
    probabilities = np.full((count, several), 1e-3)
    probabilities[:, said] += dice.dirichlet(np.ones(len(said)), count)
    probabilities[np.arange(count), truth] += draw(st.floats(0, 2))
    if draw(st.booleans()):
        # Few distinct scores, so that many are equal.
        probabilities = np.ceil(probabilities * 4)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    groups = [str(number) for number in dice.integers(0, max(1, count // 2), count)]
    return make_predictions(truth, probabilities, groups)


def draw_grades(seed: int, count: int, classes: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw grades as a network might give them, and the truth; rounding them is not the best cut."""
    dice = np.random.default_rng(seed)
    truth = np.minimum(dice.geometric(0.5, count) - 1, classes - 1)
    return 0.6 * truth + 0.3 + noise * dice.normal(size=count), truth
