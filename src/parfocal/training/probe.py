"""Linear probing: logistic regression on the features of the pretrained network, written into its head.

The features are computed once, so this takes about as long as evaluating the training split. The network that results
is the best that a new head can make of the pretrained features, and a better start for fine-tuning than a random head.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits
from torch import Tensor

from parfocal.data.loader import BatchLoader
from parfocal.data.table import Table
from parfocal.engine.distributed import rank_zero_guard
from parfocal.errors import UsageError
from parfocal.evaluation.inference import compute_rows, gather_rows
from parfocal.groups import GroupKind
from parfocal.models.classifier import Classifier
from parfocal.progress import show_progress
from parfocal.training.step import EpochState, Learner

_MAX_FOLDS = 5
# scikit-learn's C, from a strong penalty to a weak one.
_CANDIDATES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 3))
# The penalty where too few groups are left for a cross-validation.
_DEFAULT_C = 0.01
_CV_TOLERANCE = 1e-4
_TOLERANCE = 1e-7
_MAX_ITERATIONS = 10_000


@dataclass(frozen=True)
class LinearProbe:
    """A linear head that was fitted to features: the logits are `features @ weight.T + bias`.

    `c` is scikit-learn's inverse strength of the L2 penalty on the weights for standardized features. `accuracy` is
    that of the cross-validation which chose it, over `n_folds` folds; 0 folds if there were too few groups for one.
    """

    weight: np.ndarray
    bias: np.ndarray
    c: float
    n_folds: int
    accuracy: float

    def describe(self, groups_are: GroupKind) -> str:
        """Describe in a line how the head was fitted."""
        text = f"The head was fitted to the features by logistic regression with an L2 penalty of C={self.c:.2g}"
        if not self.n_folds:
            return f"{text}, the default: there are too few {groups_are} for cross-validation."
        return f"{text}: accuracy {self.accuracy:.3f} in cross-validation over {groups_are} ({self.n_folds} folds)."


def fit_head(learner: Learner, table: Table, train: BatchLoader, seed: int) -> tuple[LinearProbe, EpochState]:
    """Fit the head of a learner's classifier to the unaugmented training images; train nothing else.

    Return also the state of an epoch that has shown each image once: its loss and accuracy are those of the fit.
    """
    start_time = time.perf_counter()
    fabric = learner.fabric
    features = compute_features(fabric, learner.classifier, train)
    probe: LinearProbe | None = None
    # The other processes may have other processors, and so other last bits.
    with rank_zero_guard(fabric):
        if fabric.is_global_zero:
            groups = table.get_rows("train")["group"].to_numpy(str)
            probe = fit_linear_probe(features, train.labels, groups, len(table.classes), seed)
    probe = fabric.broadcast(probe)
    assert probe is not None
    write_head(learner.classifier, probe)
    state = EpochState.create(fabric.device, train.steps_per_epoch)
    state.n_batches = train.steps_per_epoch
    state.n_images = len(features)
    if fabric.is_global_zero:
        # In distributed training the sums of the processes are added.
        logits = torch.from_numpy(features @ probe.weight.T + probe.bias)
        labels = torch.from_numpy(train.labels)
        state.loss_sum += torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        state.n_correct += (logits.argmax(dim=1) == labels).sum()
    state.seconds = time.perf_counter() - start_time
    state.wait_seconds = train.wait_seconds
    return probe, state


def compute_features(fabric: Fabric, classifier: Classifier, batches: BatchLoader) -> np.ndarray:
    """Return the pooled features of a split's images as evaluation shows them, which the head takes: a row per image.

    Each process computes its share of the rows, and all get the whole.
    """
    rows = batches.rank_rows()
    network = classifier.network

    def compute(pixels: Tensor) -> Tensor:
        return network.forward_pooled(classifier.normalize(pixels)).float()

    with show_progress("Computing features", len(rows)) as advance:

        def read_pixels() -> Iterator[Tensor]:
            for pixels, _ in batches.eval_batches():
                yield pixels
                advance(len(pixels))

        features = compute_rows(fabric, classifier, compute, read_pixels())
    return gather_rows(fabric, features, rows, (len(batches.indices), network.fc.in_features))


def fit_linear_probe(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, n_classes: int, seed: int = 0
) -> LinearProbe:
    """Fit a multinomial logistic regression with an L2 penalty that cross-validation over groups chooses.

    Features are standardized first, and the result is expressed in the original features. A class without images gets
    no weights and the lowest bias, below those of the others.
    """
    present = np.unique(labels)
    if len(present) < 2:
        raise UsageError("head=probe and head=warm_start need training images of two classes. Set head=random.")
    mean = features.mean(axis=0)
    std = features.std(axis=0)
    # A constant feature becomes 0, and so does its weight.
    std[std == 0] = 1
    standardized = (features - mean) / std
    # The last bits depend on the number of threads; a single one is as fast for problems of this size.
    with threadpool_limits(1):
        c, n_folds, accuracy = choose_penalty(standardized, labels, groups, seed)
        model = LogisticRegression(C=c, tol=_TOLERANCE, max_iter=_MAX_ITERATIONS).fit(standardized, labels)
    coefficients = model.coef_
    intercepts = model.intercept_
    if len(present) == 2:
        # scikit-learn has only the difference between the second class and the first.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight = np.zeros((n_classes, features.shape[1]))
    weight[present] = coefficients / std
    bias = np.full(n_classes, intercepts.min() - np.log(len(labels)))
    bias[present] = intercepts - weight[present] @ mean
    return LinearProbe(weight, bias, c, n_folds, accuracy)


def choose_penalty(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, int, float]:
    """Return the C with the lowest log loss in cross-validation over groups, the number of folds, and the accuracy."""
    folds = split_folds(labels, groups, seed)
    if not folds:
        return _DEFAULT_C, 0, float("nan")
    truth = np.concatenate([labels[test] for _, test in folds])
    models = [LogisticRegression(tol=_CV_TOLERANCE, max_iter=_MAX_ITERATIONS, warm_start=True) for _ in folds]
    best_c = _DEFAULT_C
    best_loss = float("inf")
    best_accuracy = float("nan")
    # Each fit starts from the one before it. The log loss has a single minimum, and weaker penalties take longer.
    for c in _CANDIDATES:
        probabilities = np.concatenate(
            [
                model.set_params(C=c).fit(features[train], labels[train]).predict_proba(features[test])
                for model, (train, test) in zip(models, folds, strict=True)
            ]
        )
        loss = log_loss(truth, probabilities, labels=models[0].classes_)
        if loss >= best_loss:
            break
        best_c = c
        best_loss = loss
        best_accuracy = float(accuracy_score(truth, models[0].classes_[probabilities.argmax(axis=1)]))
    return best_c, len(folds), best_accuracy


def split_folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows to fit and to test of each fold; a group is in one fold only.

    A fold is left out where a class has all its images in it, so that none is left to fit. No folds are left if there
    are too few groups.
    """
    n_folds = min(_MAX_FOLDS, len(np.unique(groups)), np.unique(labels, return_counts=True)[1].max())
    if n_folds < 2:
        return []
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer images than folds.
        warnings.simplefilter("ignore", UserWarning)
        folds = list(splitter.split(labels, labels, groups))
    n_classes = len(np.unique(labels))
    return [(fit, test) for fit, test in folds if len(test) and len(np.unique(labels[fit])) == n_classes]


@torch.no_grad()
def write_head(classifier: Classifier, probe: LinearProbe) -> None:
    """Replace the weights of a classifier's head by those of a linear probe."""
    head = classifier.network.fc
    head.weight.copy_(torch.from_numpy(probe.weight))
    head.bias.copy_(torch.from_numpy(probe.bias))
