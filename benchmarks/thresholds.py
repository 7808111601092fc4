"""Measure what tuned, shrunk and cross-fitted thresholds between grades reach on images that did not choose them.

Grades are drawn from a severity that a network sees with noise; its probabilities are sharpened and noisy, and then
calibrated on validation, as in Parfocal. Prints the mean quadratic kappa on new images by number of validation images.

    python -m benchmarks.thresholds
"""

import numpy as np
from scipy.special import softmax
from scipy.stats import norm

from parfocal.evaluation import confusion
from parfocal.evaluation.calibration import apply_temperature, fit_temperature
from parfocal.evaluation.thresholds import (
    apply_thresholds,
    compute_expected_grades,
    shrink_thresholds,
    tune_thresholds,
)

# The shares of the grades, and the correlation of severity and of what the network sees of it.
SETTINGS = {
    "EyePACS": ((0.735, 0.07, 0.15, 0.025, 0.02), 0.75),
    "APTOS": ((0.49, 0.10, 0.27, 0.053, 0.087), 0.95),
    "RetinaMNIST": ((0.43, 0.12, 0.20, 0.18, 0.07), 0.8),
}
SIZES = (40, 80, 150, 300, 1000)
N_TEST = 10_000
N_REPETITIONS = 30
N_FOLDS = 5
ROUNDING = np.arange(4) + 0.5


def draw(
    rng: np.random.Generator, n_images: int, shares: tuple[float, ...], correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw true grades and the probabilities of a network."""
    cuts = norm.ppf(np.cumsum(shares)[:-1])
    severity = rng.normal(size=n_images)
    noise = np.sqrt(1 - correlation**2)
    seen = correlation * severity + noise * rng.normal(size=n_images)
    bounds = np.concatenate([[-np.inf], cuts, [np.inf]])
    posterior = np.diff(norm.cdf((bounds - correlation * seen[:, None]) / noise), axis=1)
    logits = np.log(posterior + 1e-9) / 0.6 + 0.6 * rng.normal(size=posterior.shape)
    return np.searchsorted(cuts, severity), softmax(logits, axis=1)


def compute_kappa(truth: np.ndarray, labels: np.ndarray) -> float:
    """Return the quadratic weighted kappa."""
    return float(confusion.kappa(confusion.confusion_matrix(truth, labels, 5), power=2))


def choose_weight(rng: np.random.Generator, grades: np.ndarray, truth: np.ndarray) -> float:
    """Return the weight of tuned thresholds, against rounding, with the highest cross-fitted kappa."""
    folds = rng.permutation(len(truth)) % N_FOLDS
    tuned = [tune_thresholds(grades[folds != fold], truth[folds != fold], 5) for fold in range(N_FOLDS)]
    kappas: dict[float, float] = {}
    for weight in np.linspace(0, 1, 6):
        labels = np.empty(len(truth), dtype=np.int64)
        for fold in range(N_FOLDS):
            thresholds = ROUNDING + weight * (tuned[fold] - ROUNDING)
            labels[folds == fold] = apply_thresholds(grades[folds == fold], thresholds)
        kappas[float(weight)] = compute_kappa(truth, labels)
    return max(kappas, key=lambda weight: kappas[weight])


def measure(shares: tuple[float, ...], correlation: float, n_images: int, seed: int) -> list[float]:
    """Return the kappa on new images of rounding and of tuned, shrunk and cross-fitted thresholds."""
    rng = np.random.default_rng(seed)
    truth, probabilities = draw(rng, n_images, shares, correlation)
    test_truth, test_probabilities = draw(rng, N_TEST, shares, correlation)
    temperature = fit_temperature(truth, probabilities)
    grades = compute_expected_grades(apply_temperature(probabilities, temperature))
    test_grades = compute_expected_grades(apply_temperature(test_probabilities, temperature))
    tuned = tune_thresholds(grades, truth, 5)
    cross_fitted = ROUNDING + choose_weight(rng, grades, truth) * (tuned - ROUNDING)
    choices = (ROUNDING, tuned, shrink_thresholds(tuned, n_images), cross_fitted)
    return [compute_kappa(test_truth, apply_thresholds(test_grades, thresholds)) for thresholds in choices]


def main() -> None:
    """Print the table."""
    print("| grades as in | validation images | rounding | tuned | shrunk | weight by cross-fitting |")
    print("|---|---|---|---|---|---|")
    for name, (shares, correlation) in SETTINGS.items():
        for n_images in SIZES:
            kappas = np.mean([measure(shares, correlation, n_images, seed) for seed in range(N_REPETITIONS)], axis=0)
            print(f"| {name} | {n_images} | {' | '.join(f'{kappa:.3f}' for kappa in kappas)} |", flush=True)


if __name__ == "__main__":
    main()
