"""Benchmark of the statistics: the time of 2,000 bootstrap samples, the coverage of intervals, and false positives.

Patients are simulated again and again, each with several images of similar truth and difficulty. The true value of a
metric is its value over a very large number of patients. Two networks that are equally good differ only by their own
noise, so that every significant difference between them is a false positive.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import save_results
from parfocal.evaluation.bootstrap import CONFIDENCE_LEVEL, bootstrap, compute_intervals
from parfocal.evaluation.compare import compare_predictions
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.metrics import SPLIT_METRICS, ResampledMetrics
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe_schema import EvaluationConfig

GRADE_SHARES = (0.735, 0.07, 0.15, 0.025, 0.02)
"""Shares of the grades in the fundus photographs of the source documents."""

_N_REFERENCE_PATIENTS = 200_000


@dataclass(frozen=True)
class DatasetSetting:
    """A kind of test set: the number of patients, the most images of one, and the shares of the classes."""

    n_patients: int
    max_images: int
    class_shares: tuple[float, ...]


SETTINGS = {
    "eyes: 300 patients, 1 or 2 images, 5 grades": DatasetSetting(300, 2, GRADE_SHARES),
    "eyes: 1,000 patients, 1 or 2 images, 5 grades": DatasetSetting(1000, 2, GRADE_SHARES),
    "cells: 40 patients, 1 to 30 images, 2 classes": DatasetSetting(40, 30, (0.35, 0.65)),
    "cells: 60 patients, 1 to 30 images, 2 classes": DatasetSetting(60, 30, (0.35, 0.65)),
    "cells: 200 patients, 1 to 30 images, 2 classes": DatasetSetting(200, 30, (0.35, 0.65)),
}


@dataclass(frozen=True)
class EqualNetworks:
    """A comparison of two equal networks: the number of patients, the most images of one, and each network's noise."""

    n_patients: int
    max_images: int
    noise: float


EQUAL_NETWORKS = {
    "40 patients, few different predictions": EqualNetworks(40, 4, 0.2),
    "40 patients, many": EqualNetworks(40, 4, 1.5),
    "1,000 patients, few": EqualNetworks(1000, 2, 0.03),
    "1,000 patients, many": EqualNetworks(1000, 2, 1.5),
}


def simulate_predictions(setting: DatasetSetting, n_patients: int, rng: np.random.Generator) -> Predictions:
    """Simulate patients, their images, and the predictions of a network of average quality."""
    n_classes = len(setting.class_shares)
    group = np.repeat(np.arange(n_patients), rng.integers(1, setting.max_images + 1, n_patients))
    severity = rng.normal(size=n_patients)[group] * np.sqrt(0.8) + rng.normal(size=len(group)) * np.sqrt(0.2)
    thresholds = np.quantile(rng.normal(size=100_000), np.cumsum(setting.class_shares)[:-1])
    if n_classes > 2:
        truth = np.searchsorted(thresholds, severity)
    else:
        # With two classes, all images of a patient have the same one; grades can differ between the eyes.
        truth = (rng.random(n_patients) < setting.class_shares[1])[group] * 1
    noise = rng.normal(size=(n_patients, n_classes))[group] + rng.normal(size=(len(group), n_classes))
    logits = 2 * np.eye(n_classes)[truth] + noise + np.log(setting.class_shares)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ids = tuple(map(str, range(len(group))))
    return Predictions(ids, tuple(map(str, group)), truth, probabilities, tuple("abcde"[:n_classes]))


def measure_coverage(setting: DatasetSetting, repeats: int, n_samples: int) -> dict[str, float]:
    """Return by metric the share of intervals that contain the true value."""
    reference = simulate_predictions(setting, _N_REFERENCE_PATIENTS, np.random.default_rng(1))
    reference_values = ResampledMetrics(reference).compute()
    true_values = {metric.name: reference_values[metric.name,] for metric in SPLIT_METRICS if metric.has_interval}
    hits: dict[str, list[bool]] = {name: [] for name in true_values}
    for repeat in range(repeats):
        predictions = simulate_predictions(setting, setting.n_patients, np.random.default_rng([2, repeat]))
        results = bootstrap([ResampledMetrics(predictions)], n_samples, seed=repeat)[0]
        for name, true_value in true_values.items():
            low, high = results[name,].compute_interval() or (np.nan, np.nan)
            hits[name].append(bool(low <= true_value <= high))
    return {name: round(float(np.mean(metric_hits)), 3) for name, metric_hits in hits.items()}


def simulate_equal_networks(setting: EqualNetworks, rng: np.random.Generator) -> list[Predictions]:
    """Simulate patients, their images, and the predictions of two equally good networks."""
    group = np.repeat(np.arange(setting.n_patients), rng.integers(1, setting.max_images + 1, setting.n_patients))
    truth = rng.integers(0, 2, setting.n_patients)[group]
    shared_logit = 4 * truth - 2 + rng.normal(size=setting.n_patients)[group] + rng.normal(size=len(group))
    ids = tuple(map(str, range(len(group))))
    groups = tuple(map(str, group))

    def predict() -> Predictions:
        noise = rng.normal(size=setting.n_patients)[group] + rng.normal(size=len(group))
        probability = 1 / (1 + np.exp(-shared_logit - setting.noise * noise))
        return Predictions(ids, groups, truth, np.stack([1 - probability, probability], axis=1), ("a", "b"))

    return [predict(), predict()]


def measure_false_positives(setting: EqualNetworks, repeats: int, n_samples: int) -> dict[str, object]:
    """Return the mean number of images with different predictions, and by metric the share of low p-values."""
    p_values: dict[str, list[float]] = {}
    n_different: list[int] = []
    for repeat in range(repeats):
        first, second = simulate_equal_networks(setting, np.random.default_rng([3, repeat]))
        n_different.append(int((first.predicted != second.predicted).sum()))
        families = {"first": {"first": first}, "second": {"second": second}}
        for difference in compare_predictions(families, "", n_samples).differences:
            # Where all samples are equal there is no p-value, and therefore no false positive.
            p_value = 1.0 if difference.p_value is None else difference.p_value
            p_values.setdefault(difference.metric, []).append(p_value)
    shares = {
        metric: {str(level): round(float(np.mean(np.array(values) < level)), 3) for level in (0.05, 0.01)}
        for metric, values in p_values.items()
    }
    return {"different_predictions": round(statistics.mean(n_different), 1), "p_values_below": shares}


def measure_seconds(function: Callable[[], object], repeats: int = 5) -> dict[str, float]:
    """Return the median wall time of a function, and its processor time over all cores."""
    wall: list[float] = []
    processor: list[float] = []
    for _ in range(repeats):
        wall_start = time.perf_counter()
        processor_start = time.process_time()
        function()
        wall.append(time.perf_counter() - wall_start)
        processor.append(time.process_time() - processor_start)
    return {"wall": round(statistics.median(wall), 2), "processor": round(statistics.median(processor), 2)}


def measure_intervals(n_images: int, repeats: int, n_samples: int) -> None:
    """Measure how long intervals take, and how often they contain the true value."""
    setting = DatasetSetting(round(n_images / 1.5), 2, GRADE_SHARES)
    predictions = simulate_predictions(setting, setting.n_patients, np.random.default_rng(0))
    config = EvaluationConfig(ordered=True, referable=2)
    seconds = {
        "all metrics of all classes": measure_seconds(lambda: compute_intervals(ResampledMetrics(predictions))),
        "and of patients and referable disease": measure_seconds(lambda: evaluate_split(predictions, config)),
    }
    print(seconds, flush=True)
    coverage: dict[str, dict[str, float]] = {}
    for name, setting in SETTINGS.items():
        coverage[name] = measure_coverage(setting, repeats, n_samples)
        print(name, coverage[name], flush=True)
    save_results(
        "intervals",
        {
            "images": len(predictions),
            "seconds": seconds,
            "level": CONFIDENCE_LEVEL,
            "repeats": repeats,
            "n_samples": n_samples,
            "coverage": coverage,
        },
    )


def measure_differences(repeats: int, n_samples: int) -> None:
    """Measure how often a difference between two equal networks has a low p-value."""
    false_positives: dict[str, dict[str, object]] = {}
    for name, setting in EQUAL_NETWORKS.items():
        false_positives[name] = measure_false_positives(setting, repeats, n_samples)
        print(name, false_positives[name], flush=True)
    save_results("differences", {"repeats": repeats, "n_samples": n_samples, "false_positives": false_positives})


def main() -> None:
    """Parse the options, measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=35_000)
    parser.add_argument("--repeats", type=int, default=1000, help="number of simulated test sets of each kind")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples of each interval")
    parser.add_argument("--only", choices=["intervals", "differences"], help="measure only one of the two")
    options = parser.parse_args()
    if options.only != "differences":
        measure_intervals(options.images, options.repeats, options.samples)
    if options.only != "intervals":
        measure_differences(options.repeats, options.samples)


if __name__ == "__main__":
    main()
