"""The registry of metrics, and their computation for the predictions of a split or for many bootstrap samples of it.

To add a metric, add a row to `METRICS`. All lists of metric names are filters of it.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from scipy import sparse

from parfocal.evaluation import calibration, confusion, ranked_scores
from parfocal.evaluation.predictions import Predictions, index_groups
from parfocal.evaluation.ranked_scores import RankedScores, find_averaged_labels


@dataclass(frozen=True)
class Metric:
    """A metric: its names, what it is computed from, and where it is used.

    What `compute` takes depends on the source:

    - `confusion`: confusion matrices (samples, K, K); it returns a value per matrix, per class (samples, K) for a
      metric of single classes.
    - `scores`: the true classes and the probabilities; it returns a value per image, and the metric is their mean.
    - `bins`: the sums of each confidence bin (samples, bins) of correct images, confidence and images.
    - `ranks`: the counts of a class against the rest (`RankCounts`).
    """

    name: str
    """The name in files and in the recipe."""
    heading: str
    """The name at the head of a column."""
    source: Literal["confusion", "scores", "bins", "ranks"]
    compute: Callable[..., np.ndarray]
    _: KW_ONLY
    full_name: str = ""
    """The name in sentences and titles, where it differs from the heading."""
    scope: Literal["split", "class", "both"] = "split"
    """Whether it is a metric of a whole split, of single classes, or both: the split's is the mean over classes."""
    greater_is_better: bool = True
    needs_classes: int = 1
    """The number of classes that a split needs to have images of, for the metric to mean something."""
    needs_order: bool = False
    """Whether it is for ordered classes (grades)."""
    same_as: str = ""
    """The metric that it equals if there are only two classes."""
    selectable: bool = False
    """Whether it is kept per epoch and can choose the best epoch (`select` in the recipe, which lists the names)."""
    compared: bool = False
    """Whether differences between runs are tested."""
    tables: Literal["none", "wide", "all"] = "none"
    """Which tables of results show it: none, only wide tables (of the report), or all."""
    has_interval: bool = True

    @property
    def label(self) -> str:
        """The name in a sentence."""
        return self.full_name or self.heading

    @property
    def title(self) -> str:
        """The name in a title, with a capital letter."""
        return self.label[0].upper() + self.label[1:]


METRICS = (
    Metric("accuracy", "accuracy", "confusion", confusion.accuracy, selectable=True, compared=True, tables="all"),
    Metric("balanced_accuracy", "balanced", "confusion", confusion.balanced_accuracy, full_name="balanced accuracy",
           selectable=True, compared=True, tables="all"),
    Metric("macro_f1", "macro F1", "confusion", confusion.macro_f1, compared=True, tables="wide"),
    Metric("weighted_f1", "weighted F1", "confusion", confusion.weighted_f1),
    Metric("kappa", "kappa", "confusion", confusion.kappa, needs_classes=2,
           selectable=True, compared=True, tables="all"),
    Metric("linear_kappa", "linear kappa", "confusion", partial(confusion.kappa, power=1), needs_classes=2,
           needs_order=True, same_as="kappa"),
    Metric("quadratic_kappa", "quadratic kappa", "confusion", partial(confusion.kappa, power=2), needs_classes=2,
           needs_order=True, same_as="kappa", selectable=True, compared=True, tables="all"),
    Metric("mean_absolute_error", "MAE", "confusion", confusion.mean_absolute_error, full_name="mean absolute error",
           needs_order=True, greater_is_better=False),
    Metric("recall", "recall", "confusion", confusion.recall, full_name="recall (sensitivity)", scope="class",
           tables="all"),
    Metric("precision", "precision", "confusion", confusion.precision, scope="class", tables="all"),
    Metric("specificity", "specificity", "confusion", confusion.specificity, scope="class", tables="all"),
    Metric("f1", "F1", "confusion", confusion.f1, scope="class", tables="wide"),
    Metric("auc", "AUC", "ranks", ranked_scores.auc, full_name="ROC AUC", scope="both", needs_classes=2,
           selectable=True, compared=True, tables="all"),
    Metric("average_precision", "average precision", "ranks", ranked_scores.average_precision, scope="both"),
    Metric("sensitivity_at_specificity_90", "sensitivity at 90 % specificity", "ranks",
           partial(ranked_scores.sensitivity_at_specificity, specificity=0.9), scope="class"),
    Metric("specificity_at_sensitivity_90", "specificity at 90 % sensitivity", "ranks",
           partial(ranked_scores.specificity_at_sensitivity, sensitivity=0.9), scope="class"),
    Metric("sensitivity_at_specificity_95", "sensitivity at 95 % specificity", "ranks",
           partial(ranked_scores.sensitivity_at_specificity, specificity=0.95), scope="class", tables="wide"),
    Metric("specificity_at_sensitivity_95", "specificity at 95 % sensitivity", "ranks",
           partial(ranked_scores.specificity_at_sensitivity, sensitivity=0.95), scope="class"),
    Metric("brier", "Brier", "scores", calibration.brier_scores, full_name="Brier score", greater_is_better=False,
           compared=True),
    Metric("loss", "loss", "scores", calibration.log_losses, greater_is_better=False, selectable=True, compared=True),
    # Every bootstrap sample is less calibrated than the images it is sampled from, so an interval would be wrong.
    Metric("ece", "ECE", "bins", calibration.expected_calibration_error, full_name="expected calibration error",
           greater_is_better=False, has_interval=False),
)  # fmt: skip
"""Every metric, in the order in which files hold them."""

MAJORITY_ACCURACY = Metric("majority_accuracy", "majority", "confusion", confusion.majority_accuracy,
                           full_name="majority-class baseline", has_interval=False)  # fmt: skip
"""The accuracy of always predicting the largest class: a baseline of the split, not a metric of a network."""

SPLIT_METRICS = tuple(metric for metric in METRICS if metric.scope != "class")
CLASS_METRICS = tuple(metric for metric in METRICS if metric.scope != "split")
SELECTION_METRICS = tuple(metric.name for metric in METRICS if metric.selectable)

_METRICS_BY_NAME = {metric.name: metric for metric in (*METRICS, MAJORITY_ACCURACY)}
_SCORE_METRICS = tuple(metric for metric in SPLIT_METRICS if metric.source == "scores")
# The sums of the scores come first; those of each bin follow: correct images, confidence, images.
_BIN_STARTS = [len(_SCORE_METRICS) + number * calibration.N_BINS for number in range(3)]

MetricKey = tuple[str] | tuple[str, str]
"""(metric) for a metric of the split, (class, metric) for a metric of a class."""
MetricArrays = dict[MetricKey, np.ndarray]


def get_metric(name: str) -> Metric:
    """Return the metric of a name."""
    return _METRICS_BY_NAME[name]


def compute_metrics(predictions: Predictions, resampled: "ResampledMetrics | None" = None) -> dict[str, Any]:
    """Return all metrics of a split as plain data; an undefined metric is None.

    `majority_accuracy` is the accuracy of always predicting the largest class. `auc` and `average_precision` are those
    of the second of two classes, or the mean of each class against the rest. `brier` is halved for two classes.
    `mean_absolute_error` and the weighted kappas make sense if the classes are ordered. It takes milliseconds, so that
    training can call it after each epoch. `resampled` is built from the predictions if it is not at hand.
    """
    if not predictions.labeled:
        return {"count": len(predictions), "labeled": False}
    resampled = resampled or ResampledMetrics(predictions)
    matrix = confusion.confusion_matrix(predictions.truth, predictions.predicted, len(predictions.classes))
    values = {key: None if np.isnan(value) else value for key, value in resampled.compute().items()}
    return {
        "count": len(predictions),
        "groups": len(resampled.group_names),
        "labeled": True,
        "classes": list(predictions.classes),
        "majority_accuracy": float(confusion.majority_accuracy(matrix)),
        **{metric.name: values[metric.name,] for metric in SPLIT_METRICS},
        "per_class": {
            name: {
                "support": int(matrix[label].sum()),
                "predicted": int(matrix[:, label].sum()),
                **{metric.name: values[name, metric.name] for metric in CLASS_METRICS},
            }
            for label, name in enumerate(predictions.classes)
        },
        "confusion": matrix.tolist(),
    }


class ResampledMetrics:
    """Labeled predictions of a split, prepared so that all metrics can be computed for any weights of the groups.

    A weight says how often a group, with all its images, is in a bootstrap sample. With all weights 1 the metrics are
    those of the split, so that a value and its interval come from the same code. Weights follow `group_names`.
    """

    def __init__(self, predictions: Predictions) -> None:
        self.classes = predictions.classes
        self.group_names, self._group_index = index_groups(predictions.groups)
        n_classes = len(self.classes)
        truth = predictions.truth
        self.max_elements = max(len(truth), n_classes**2)
        cells = truth * n_classes + predictions.predicted
        self._confusion_counts = self._sum_by_group([cells], n_classes**2, [np.ones(len(truth))])

        confidence = predictions.probabilities.max(axis=1)
        bins = calibration.assign_bins(confidence)
        rows = [np.full_like(bins, number) for number in range(len(_SCORE_METRICS))]
        rows += [start + bins for start in _BIN_STARTS]
        values = [metric.compute(truth, predictions.probabilities) for metric in _SCORE_METRICS]
        # Calibration is a property of the probabilities, whichever class is predicted from them.
        likeliest = predictions.probabilities.argmax(axis=1)
        values += [likeliest == truth, confidence, np.ones(len(bins))]
        self._score_sums = self._sum_by_group(rows, _BIN_STARTS[-1] + calibration.N_BINS, values)

        self._ranked_scores = [
            RankedScores(scores, truth == label) for label, scores in enumerate(predictions.probabilities.T)
        ]

    def compute(self) -> dict[MetricKey, float]:
        """Return the metrics of the predictions as they are; NaN where undefined."""
        weights = np.ones((1, len(self.group_names)), np.uint16)
        return {key: float(values[0]) for key, values in self.compute_weighted(weights).items()}

    def compute_weighted(self, weights: np.ndarray) -> MetricArrays:
        """Return the metrics for rows of weights (samples, groups); NaN where undefined."""
        n_classes = len(self.classes)
        matrices = (self._confusion_counts @ weights.T).T.reshape(-1, n_classes, n_classes)
        score_sums, *bin_sums = np.split((self._score_sums @ weights.T).T, _BIN_STARTS, axis=1)
        n_images = bin_sums[-1].sum(axis=1)
        image_weights = weights.take(self._group_index, axis=1)
        counts = [scores.count(image_weights) for scores in self._ranked_scores]

        by_class = {
            metric.name: np.stack([metric.compute(class_counts) for class_counts in counts], axis=1)
            if metric.source == "ranks"
            else metric.compute(matrices)
            for metric in CLASS_METRICS
        }
        results: MetricArrays = {}
        for metric in SPLIT_METRICS:
            if metric.source == "scores":
                values = confusion.divide(score_sums[:, _SCORE_METRICS.index(metric)], n_images)
            elif metric.source == "bins":
                values = metric.compute(*bin_sums)
            elif metric.scope == "both":
                values = confusion.mean_of_defined(by_class[metric.name][:, find_averaged_labels(n_classes)])
            else:
                values = metric.compute(matrices)
            results[metric.name,] = values
        for name, values in by_class.items():
            for label, class_name in enumerate(self.classes):
                results[class_name, name] = values[:, label]
        return results

    def _sum_by_group(self, rows: list[np.ndarray], n_rows: int, values: list[np.ndarray]) -> sparse.csr_array:
        """Sum values by row and group (rows, groups); each array holds the row, or the value, of every image."""
        positions = (np.stack(rows, axis=1).ravel(), np.repeat(self._group_index, len(rows)))
        shape = (n_rows, len(self.group_names))
        return sparse.coo_array((np.stack(values, axis=1).ravel(), positions), shape=shape).tocsr()
