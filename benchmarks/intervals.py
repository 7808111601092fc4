"""Intervals: how long 2,000 draws take, how often those of 95 % hold the truth, and how often equals seem to differ.

Made-up patients are drawn again and again, each with several images that are alike in truth and in how easy they are.
The truth of a figure is its value over so many patients that chance is gone. Two networks that are equally good differ
by their own noise alone: whatever is said of their difference is a false alarm.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import save_results
from parfocal.evaluation.bootstrap import CONFIDENCE_LEVEL, METRICS_WITHOUT_INTERVAL, bootstrap, compute_intervals
from parfocal.evaluation.compare import compare_predictions
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.metrics import ResampledMetrics
from parfocal.evaluation.predictions import Predictions
from parfocal.schema import EvaluationConfig

GRADE_SHARES = (0.735, 0.07, 0.15, 0.025, 0.02)
"""Shares of the grades in the documents' fundus photographs."""

_N_REFERENCE_PATIENTS = 200_000


@dataclass(frozen=True)
class DatasetSetting:
    """A kind of test set: how many patients, at most how many images of each, and the shares of the classes."""

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
    """A kind of comparison: of how many patients, with at most how many images each, and each network's own noise."""

    n_patients: int
    max_images: int
    noise: float


EQUAL_NETWORKS = {
    "40 patients, few images answered differently": EqualNetworks(40, 4, 0.2),
    "40 patients, many": EqualNetworks(40, 4, 1.5),
    "1,000 patients, few": EqualNetworks(1000, 2, 0.03),
    "1,000 patients, many": EqualNetworks(1000, 2, 1.5),
}


def simulate_predictions(setting: DatasetSetting, n_patients: int, rng: np.random.Generator) -> Predictions:
    """Draw patients, their images, and what a middling network would say."""
    several = len(setting.class_shares)
    group = np.repeat(np.arange(n_patients), rng.integers(1, setting.max_images + 1, n_patients))
    severity = rng.normal(size=n_patients)[group] * np.sqrt(0.8) + rng.normal(size=len(group)) * np.sqrt(0.2)
    cuts = np.quantile(rng.normal(size=100_000), np.cumsum(setting.class_shares)[:-1])
    # Of two classes a patient is one; grades may differ from eye to eye.
    truth = (
        np.searchsorted(cuts, severity)
        if several > 2
        else (rng.random(n_patients) < setting.class_shares[1])[group] * 1
    )
    own = rng.normal(size=(n_patients, several))[group] + rng.normal(size=(len(group), several))
    logits = 2 * np.eye(several)[truth] + own + np.log(setting.class_shares)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ids = tuple(map(str, range(len(group))))
    return Predictions(ids, tuple(map(str, group)), truth, probabilities, tuple("abcde"[:several]))


def measure_coverage(setting: DatasetSetting, repeats: int, n_samples: int) -> dict[str, float]:
    """Return the share of intervals that hold the truth, by figure."""
    many = ResampledMetrics(simulate_predictions(setting, _N_REFERENCE_PATIENTS, np.random.default_rng(1))).compute()
    truth = {key: value for key, value in many.items() if len(key) == 1 and key[0] not in METRICS_WITHOUT_INTERVAL}
    hits: dict[str, list[bool]] = {key[0]: [] for key in truth}
    for repeat in range(repeats):
        predictions = simulate_predictions(setting, setting.n_patients, np.random.default_rng([2, repeat]))
        found = bootstrap([ResampledMetrics(predictions)], n_samples, seed=repeat)[0]
        for key, value in truth.items():
            low, high = found[key].compute_interval() or (np.nan, np.nan)
            hits[key[0]].append(bool(low <= value <= high))
    return {name: round(float(np.mean(held)), 3) for name, held in hits.items()}


def simulate_equal_networks(setting: EqualNetworks, rng: np.random.Generator) -> list[Predictions]:
    """Draw patients, their images, and what two networks would say of which none is better."""
    group = np.repeat(np.arange(setting.n_patients), rng.integers(1, setting.max_images + 1, setting.n_patients))
    truth = rng.integers(0, 2, setting.n_patients)[group]
    shared = 4 * truth - 2 + rng.normal(size=setting.n_patients)[group] + rng.normal(size=len(group))
    ids, names = tuple(map(str, range(len(group)))), tuple(map(str, group))

    def said() -> Predictions:
        own = rng.normal(size=setting.n_patients)[group] + rng.normal(size=len(group))
        second = 1 / (1 + np.exp(-shared - setting.noise * own))
        return Predictions(ids, names, truth, np.stack([1 - second, second], axis=1), ("a", "b"))

    return [said(), said()]


def measure_false_positives(setting: EqualNetworks, repeats: int, n_samples: int) -> dict[str, object]:
    """Return how many images two equals answer differently, and the share of p below 0.05 and 0.01, by figure."""
    chances: dict[str, list[float]] = {}
    differently: list[int] = []
    for repeat in range(repeats):
        one, other = simulate_equal_networks(setting, np.random.default_rng([3, repeat]))
        differently.append(int((one.predicted != other.predicted).sum()))
        for found in compare_predictions({"one": {"one": one}, "other": {"other": other}}, "", n_samples).differences:
            # Where all draws are the same nothing is told, and so nothing falsely.
            chances.setdefault(found.metric, []).append(1.0 if found.p_value is None else found.p_value)
    below = {
        figure: {str(level): round(float(np.mean(np.array(several) < level)), 3) for level in (0.05, 0.01)}
        for figure, several in chances.items()
    }
    return {"answered_differently": round(statistics.mean(differently), 1), "below": below}


def measure_seconds(function: Callable[[], object], repeats: int = 5) -> dict[str, float]:
    """Return how long work takes, by the clock and in the time of all cores together."""
    wall: list[float] = []
    processor: list[float] = []
    for _ in range(repeats):
        started, worked = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - worked)
    return {"clock": round(statistics.median(wall), 2), "cores": round(statistics.median(processor), 2)}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=35_000)
    parser.add_argument("--repeats", type=int, default=1000, help="test sets of each kind")
    parser.add_argument("--draws", type=int, default=1000, help="draws of each interval, when coverage is measured")
    parser.add_argument("--only", choices=["intervals", "differences"], help="measure one of the two alone")
    given = parser.parse_args()
    if given.only != "differences":
        measure_intervals(given.images, given.repeats, given.draws)
    if given.only != "intervals":
        measure_differences(given.repeats, given.draws)


def measure_intervals(n_images: int, repeats: int, n_samples: int) -> None:
    """Report how long intervals take, and how often they hold the truth."""
    setting = DatasetSetting(round(n_images / 1.5), 2, GRADE_SHARES)
    predictions = simulate_predictions(setting, setting.n_patients, np.random.default_rng(0))
    part = EvaluationConfig(ordered=True, referable=2)
    taken = {
        "all figures of all classes": measure_seconds(lambda: compute_intervals(ResampledMetrics(predictions))),
        "and of patients and referable disease": measure_seconds(lambda: evaluate_split(predictions, part)),
    }
    print(taken, flush=True)
    covered: dict[str, dict[str, float]] = {}
    for name, setting in SETTINGS.items():
        covered[name] = measure_coverage(setting, repeats, n_samples)
        print(name, covered[name], flush=True)
    save_results(
        "intervals",
        {
            "images": len(predictions),
            "seconds": taken,
            "level": CONFIDENCE_LEVEL,
            "repeats": repeats,
            "draws": n_samples,
            "coverage": covered,
        },
    )


def measure_differences(repeats: int, n_samples: int) -> None:
    """Report how often a difference between two equals is taken for one."""
    found: dict[str, dict[str, object]] = {}
    for name, kind in EQUAL_NETWORKS.items():
        found[name] = measure_false_positives(kind, repeats, n_samples)
        print(name, found[name], flush=True)
    save_results("differences", {"repeats": repeats, "draws": n_samples, "false_alarms": found})


if __name__ == "__main__":
    main()
