"""Images unlike those of validation are flagged with their unusual features; similar images hardly ever are."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from parfocal.evaluation.out_of_distribution import FEATURES, OodMonitor, compute_features


def _draw_cells(seed: int, count: int) -> list[np.ndarray]:
    """Draw cells of varying color and size on a black background."""
    rng = np.random.default_rng(seed)
    images: list[np.ndarray] = []
    for _ in range(count):
        image = np.zeros((48, 48, 3), np.float64)
        color = rng.normal((190, 120, 180), 8)
        cv2.circle(image, (24, 24), int(rng.integers(14, 19)), color.tolist(), -1)
        cv2.circle(image, (24, 24), int(rng.integers(5, 10)), (color / 2).tolist(), -1)
        images.append(np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8))
    return images


def _fit(images: list[np.ndarray]) -> OodMonitor:
    monitor = OodMonitor.fit_features([compute_features(image) for image in images])
    assert monitor is not None
    return monitor


@pytest.mark.parametrize("count", [30, 400])
def test_images_like_those_of_validation_are_hardly_ever_flagged(count: int) -> None:
    flagged: list[bool] = []
    for seed in range(5):
        monitor = _fit(_draw_cells(seed, count))
        flagged += [bool(monitor.inspect(image)) for image in _draw_cells(100 + seed, 200)]
    assert np.mean(flagged) < max(0.01, 1 / count) + 0.02


@pytest.mark.parametrize(
    ("corrupt", "feature"),
    [
        (lambda image: (image * 0.2).astype(np.uint8), "red"),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 4), "sharpness"),
        (lambda image: image[..., ::-1].copy() // 2 + 100, "darkness"),
        (lambda image: cv2.merge([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)] * 3), "saturation"),
        (lambda image: np.full_like(image, 255), "contrast"),
    ],
)
def test_the_unusual_feature_is_named(corrupt: Callable[[np.ndarray], np.ndarray], feature: str) -> None:
    monitor = _fit(_draw_cells(0, 200))
    flags = [monitor.inspect(corrupt(image)).split() for image in _draw_cells(1, 20)]
    assert sum(feature in names for names in flags) >= 19


def test_too_few_images_give_no_monitor_and_identical_images_do() -> None:
    (image,) = _draw_cells(0, 1)
    features = compute_features(image)
    assert OodMonitor.fit_features([features] * 19) is None
    monitor = OodMonitor.fit_features([features] * 20)
    assert monitor is not None
    assert monitor.find_unusual_features(features) == ()
    assert monitor.find_unusual_features(compute_features(255 - image)) != ()
    assert len(monitor.mean) == len(FEATURES)
