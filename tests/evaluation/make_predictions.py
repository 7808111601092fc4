"""Predictions for tests: from given probabilities, or drawn at random with ties and absent classes."""

import numpy as np
from hypothesis import strategies as st

from parfocal.evaluation.predictions import Predictions


def make_predictions(
    truth: list[int] | np.ndarray, probabilities: np.ndarray, groups: list[str] | None = None
) -> Predictions:
    """Return predictions with numbered ids and class names; without groups, each image is its own group."""
    ids = tuple(map(str, range(len(truth))))
    names = tuple(f"class {number}" for number in range(probabilities.shape[1]))
    return Predictions(ids, tuple(groups) if groups else ids, np.array(truth), probabilities, names)


@st.composite
def random_predictions(draw: st.DrawFn, classes: tuple[int, int] = (2, 5), min_images: int = 1) -> Predictions:
    """Draw predictions of any quality: any number of images, classes that are absent, tied scores."""
    n_classes = draw(st.integers(*classes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_images = draw(st.integers(min_images, 60))
    true_classes = rng.permutation(n_classes)[: draw(st.integers(1, n_classes))]
    predicted_classes = rng.permutation(n_classes)[: draw(st.integers(1, n_classes))]
    truth = rng.choice(true_classes, n_images)
    probabilities = np.full((n_images, n_classes), 1e-3)
    probabilities[:, predicted_classes] += rng.dirichlet(np.ones(len(predicted_classes)), n_images)
    probabilities[np.arange(n_images), truth] += draw(st.floats(0, 2))
    if draw(st.booleans()):
        # Few distinct scores, so that many are tied.
        probabilities = np.ceil(probabilities * 4)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    groups = [str(number) for number in rng.integers(0, max(1, n_images // 2), n_images)]
    return make_predictions(truth, probabilities, groups)


def draw_grades(seed: int, n_images: int, n_classes: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw true grades and the grades that a network might predict, for which rounding is not the best threshold."""
    rng = np.random.default_rng(seed)
    truth = np.minimum(rng.geometric(0.5, n_images) - 1, n_classes - 1)
    return 0.6 * truth + 0.3 + noise * rng.normal(size=n_images), truth
