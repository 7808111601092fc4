"""How much a split that ignores patients overstates the quality of a network, with its confidence interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from parfocal.evaluation import confusion
from parfocal.evaluation.predictions import Predictions

METRICS = {"accuracy": confusion.accuracy, "quadratic kappa": lambda matrices: confusion.kappa(matrices, power=2)}


@dataclass(frozen=True)
class Gap:
    """A metric on both splits, as means over runs, and their difference with its 95 % interval over patients."""

    by_patient: float
    by_image: float
    interval: tuple[float, float]

    @property
    def value(self) -> float:
        """How much higher the metric is if the split ignores patients."""
        return self.by_image - self.by_patient


def compute_gaps(
    by_patient: Sequence[Predictions],
    by_image: Sequence[Predictions],
    patients: Mapping[str, str],
    n_samples: int = 2000,
) -> dict[str, Gap]:
    """Return the gap of each metric between runs on splits by patient and by image.

    `patients` maps the id of an image to its patient. A bootstrap sample draws patients of the whole data set, and
    counts for every run, because the test splits of the runs overlap.
    """
    codes, names = pd.factorize(np.array(list(patients.values())))
    patient_of = dict(zip(patients, codes.tolist(), strict=True))
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_samples)
    # The first row is the data set itself, with every patient once.
    weights = np.concatenate([np.ones((1, len(names)), counts.dtype), counts])
    values = [_compute_means(runs, patient_of, weights) for runs in (by_patient, by_image)]
    gaps: dict[str, Gap] = {}
    for metric in METRICS:
        honest, blind = (means[metric] for means in values)
        low, high = np.nanquantile((blind - honest)[1:], [0.025, 0.975])
        gaps[metric] = Gap(float(honest[0]), float(blind[0]), (float(low), float(high)))
    return gaps


def _compute_means(
    runs: Sequence[Predictions], patient_of: Mapping[str, int], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each metric for each row of weights of patients, as the mean over runs."""
    values: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for run in runs:
        n_classes = len(run.classes)
        cells = run.truth * n_classes + run.predicted
        one_hot = np.eye(n_classes**2, dtype=np.int64)[cells]
        matrices = weights[:, [patient_of[name] for name in run.ids]] @ one_hot
        for metric, compute in METRICS.items():
            values[metric].append(compute(matrices.reshape(-1, n_classes, n_classes)))
    return {metric: np.mean(of_runs, axis=0) for metric, of_runs in values.items()}
