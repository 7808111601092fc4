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

from benchmarks.machine import report
from parfocal.evaluation.compare import comparison_of
from parfocal.evaluation.intervals import LEVEL, WITHOUT, intervals, spreads
from parfocal.evaluation.judgement import judge_fully
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.weighed import Weighed
from parfocal.parts import JudgementPart

GRADES = (0.735, 0.07, 0.15, 0.025, 0.02)
"""Shares of the grades in the documents' fundus photographs."""

_MANY = 200_000


@dataclass(frozen=True)
class Setting:
    """A kind of test set: how many patients, at most how many images of each, and the shares of the classes."""

    patients: int
    most_images: int
    shares: tuple[float, ...]


SETTINGS = {
    "eyes: 300 patients, 1 or 2 images, 5 grades": Setting(300, 2, GRADES),
    "eyes: 1,000 patients, 1 or 2 images, 5 grades": Setting(1000, 2, GRADES),
    "cells: 40 patients, 1 to 30 images, 2 classes": Setting(40, 30, (0.35, 0.65)),
    "cells: 60 patients, 1 to 30 images, 2 classes": Setting(60, 30, (0.35, 0.65)),
    "cells: 200 patients, 1 to 30 images, 2 classes": Setting(200, 30, (0.35, 0.65)),
}


@dataclass(frozen=True)
class Equals:
    """A kind of comparison: of how many patients, with at most how many images each, and each network's own noise."""

    patients: int
    most_images: int
    noise: float


EQUALS = {
    "40 patients, few images answered differently": Equals(40, 4, 0.2),
    "40 patients, many": Equals(40, 4, 1.5),
    "1,000 patients, few": Equals(1000, 2, 0.03),
    "1,000 patients, many": Equals(1000, 2, 1.5),
}


def made_up(setting: Setting, patients: int, dice: np.random.Generator) -> Predictions:
    """Draw patients, their images, and what a middling network would say."""
    several = len(setting.shares)
    group = np.repeat(np.arange(patients), dice.integers(1, setting.most_images + 1, patients))
    severity = dice.normal(size=patients)[group] * np.sqrt(0.8) + dice.normal(size=len(group)) * np.sqrt(0.2)
    cuts = np.quantile(dice.normal(size=100_000), np.cumsum(setting.shares)[:-1])
    # Of two classes a patient is one; grades may differ from eye to eye.
    truth = np.searchsorted(cuts, severity) if several > 2 else (dice.random(patients) < setting.shares[1])[group] * 1
    own = dice.normal(size=(patients, several))[group] + dice.normal(size=(len(group), several))
    logits = 2 * np.eye(several)[truth] + own + np.log(setting.shares)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ids = tuple(map(str, range(len(group))))
    return Predictions(ids, tuple(map(str, group)), truth, probabilities, tuple("abcde"[:several]))


def coverage(setting: Setting, repeats: int, draws: int) -> dict[str, float]:
    """Return the share of intervals that hold the truth, by figure."""
    many = Weighed(made_up(setting, _MANY, np.random.default_rng(1))).once()
    truth = {key: value for key, value in many.items() if len(key) == 1 and key[0] not in WITHOUT}
    hits: dict[str, list[bool]] = {key[0]: [] for key in truth}
    for repeat in range(repeats):
        predictions = made_up(setting, setting.patients, np.random.default_rng([2, repeat]))
        found = spreads([Weighed(predictions)], draws, seed=repeat)[0]
        for key, value in truth.items():
            low, high = found[key].interval() or (np.nan, np.nan)
            hits[key[0]].append(bool(low <= value <= high))
    return {name: round(float(np.mean(held)), 3) for name, held in hits.items()}


def equally_good(kind: Equals, dice: np.random.Generator) -> list[Predictions]:
    """Draw patients, their images, and what two networks would say of which none is better."""
    group = np.repeat(np.arange(kind.patients), dice.integers(1, kind.most_images + 1, kind.patients))
    truth = dice.integers(0, 2, kind.patients)[group]
    shared = 4 * truth - 2 + dice.normal(size=kind.patients)[group] + dice.normal(size=len(group))
    ids, names = tuple(map(str, range(len(group)))), tuple(map(str, group))

    def said() -> Predictions:
        own = dice.normal(size=kind.patients)[group] + dice.normal(size=len(group))
        second = 1 / (1 + np.exp(-shared - kind.noise * own))
        return Predictions(ids, names, truth, np.stack([1 - second, second], axis=1), ("a", "b"))

    return [said(), said()]


def false_alarms(kind: Equals, repeats: int, draws: int) -> dict[str, object]:
    """Return how many images two equals answer differently, and the share of p below 0.05 and 0.01, by figure."""
    chances: dict[str, list[float]] = {}
    differently: list[int] = []
    for repeat in range(repeats):
        one, other = equally_good(kind, np.random.default_rng([3, repeat]))
        differently.append(int((one.predicted != other.predicted).sum()))
        for found in comparison_of({"one": {"one": one}, "other": {"other": other}}, "", draws).differences:
            # Where all draws are the same nothing is told, and so nothing falsely.
            chances.setdefault(found.figure, []).append(1.0 if found.chance is None else found.chance)
    below = {
        figure: {str(level): round(float(np.mean(np.array(several) < level)), 3) for level in (0.05, 0.01)}
        for figure, several in chances.items()
    }
    return {"answered_differently": round(statistics.mean(differently), 1), "below": below}


def seconds(work: Callable[[], object], repeats: int = 5) -> dict[str, float]:
    """Return how long work takes, by the clock and in the time of all cores together."""
    wall: list[float] = []
    processor: list[float] = []
    for _ in range(repeats):
        started, worked = time.perf_counter(), time.process_time()
        work()
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


def measure_intervals(images: int, repeats: int, draws: int) -> None:
    """Report how long intervals take, and how often they hold the truth."""
    setting = Setting(round(images / 1.5), 2, GRADES)
    predictions = made_up(setting, setting.patients, np.random.default_rng(0))
    part = JudgementPart(ordered=True, referable=2)
    taken = {
        "all figures of all classes": seconds(lambda: intervals(Weighed(predictions))),
        "and of patients and referable disease": seconds(lambda: judge_fully(predictions, part)),
    }
    print(taken, flush=True)
    covered: dict[str, dict[str, float]] = {}
    for name, setting in SETTINGS.items():
        covered[name] = coverage(setting, repeats, draws)
        print(name, covered[name], flush=True)
    report(
        "intervals",
        {
            "images": len(predictions),
            "seconds": taken,
            "level": LEVEL,
            "repeats": repeats,
            "draws": draws,
            "coverage": covered,
        },
    )


def measure_differences(repeats: int, draws: int) -> None:
    """Report how often a difference between two equals is taken for one."""
    found: dict[str, dict[str, object]] = {}
    for name, kind in EQUALS.items():
        found[name] = false_alarms(kind, repeats, draws)
        print(name, found[name], flush=True)
    report("differences", {"repeats": repeats, "draws": draws, "false_alarms": found})


if __name__ == "__main__":
    main()
