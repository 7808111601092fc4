"""Images unlike those of validation are flagged with what is odd about them; images like them hardly ever."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from parfocal.evaluation.out_of_distribution import FEATURES, compute_features, fit_ood_monitor


def _cells(seed: int, count: int) -> list[np.ndarray]:
    """Draw cells of varying colour and size on black."""
    dice, images = np.random.default_rng(seed), []
    for _ in range(count):
        image = np.zeros((48, 48, 3), np.float64)
        colour = dice.normal((190, 120, 180), 8)
        cv2.circle(image, (24, 24), int(dice.integers(14, 19)), colour.tolist(), -1)
        cv2.circle(image, (24, 24), int(dice.integers(5, 10)), (colour / 2).tolist(), -1)
        images.append(np.clip(image + dice.normal(0, 6, image.shape), 0, 255).astype(np.uint8))
    return images


@pytest.mark.parametrize("count", [30, 400])
def test_images_like_those_of_validation_are_hardly_ever_flagged(count: int) -> None:
    flagged: list[bool] = []
    for seed in range(5):
        ordinary = fit_ood_monitor([compute_features(one) for one in _cells(seed, count)])
        assert ordinary is not None
        flagged += [bool(ordinary.find_unusual_features(compute_features(one))) for one in _cells(100 + seed, 200)]
    assert np.mean(flagged) < max(0.01, 1 / count) + 0.02


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda image: (image * 0.2).astype(np.uint8), "red"),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 4), "sharpness"),
        (lambda image: image[..., ::-1].copy() // 2 + 100, "darkness"),
        (lambda image: cv2.merge([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)] * 3), "saturation"),
        (lambda image: np.full_like(image, 255), "contrast"),
    ],
)
def test_what_is_odd_is_named(change: Callable[[np.ndarray], np.ndarray], odd: str) -> None:
    ordinary = fit_ood_monitor([compute_features(one) for one in _cells(0, 200)])
    assert ordinary is not None
    changed = [ordinary.find_unusual_features(compute_features(change(one))) for one in _cells(1, 20)]
    assert sum(odd in one for one in changed) >= 19


def test_of_few_images_nothing_is_said_and_of_equal_ones_something() -> None:
    (one,) = _cells(0, 1)
    assert fit_ood_monitor([compute_features(one)] * 19) is None
    ordinary = fit_ood_monitor([compute_features(one)] * 20)
    assert ordinary is not None
    assert ordinary.find_unusual_features(compute_features(one)) == ()
    assert ordinary.find_unusual_features(compute_features(255 - one)) != ()
    assert len(ordinary.mean) == len(FEATURES)
