"""Intervals: how long 2,000 draws take, and how often intervals of a nominal 95 % hold the truth.

Made-up patients are drawn again and again, each with several images that are alike in truth and in how easy they are.
The truth of a figure is its value over so many patients that chance is gone.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import report
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
    given = parser.parse_args()
    setting = Setting(round(given.images / 1.5), 2, GRADES)
    predictions = made_up(setting, setting.patients, np.random.default_rng(0))
    part = JudgementPart(ordered=True, referable=2)
    taken = {
        "all figures of all classes": seconds(lambda: intervals(Weighed(predictions))),
        "and of patients and referable disease": seconds(lambda: judge_fully(predictions, part)),
    }
    print(taken, flush=True)
    covered: dict[str, dict[str, float]] = {}
    for name, setting in SETTINGS.items():
        covered[name] = coverage(setting, given.repeats, given.draws)
        print(name, covered[name], flush=True)
    report(
        "intervals",
        {
            "images": len(predictions),
            "seconds": taken,
            "level": LEVEL,
            "repeats": given.repeats,
            "draws": given.draws,
            "coverage": covered,
        },
    )


if __name__ == "__main__":
    main()
