"""Metrics of confusion matrices: accuracy, recall, precision, F1, Cohen's kappa, mean absolute error.

Each function takes an array of matrices (…, K, K), with true classes as rows and predicted classes as columns, and
returns a value per matrix: NaN where the metric is undefined. scikit-learn defines the same metrics, but takes a
call per matrix; the bootstrap needs thousands at once. The tests compare the two.
"""

import numpy as np

Array = np.ndarray


def confusion_matrix(truth: Array, predicted: Array, n_classes: int) -> Array:
    """Count the images of each true class (rows) and predicted class (columns)."""
    return np.bincount(truth * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(matrix: Array) -> Array:
    """Return the share of correct predictions."""
    return divide(_diagonal(matrix).sum(axis=-1), matrix.sum(axis=(-2, -1)))


def majority_accuracy(matrix: Array) -> Array:
    """Return the accuracy of the majority-class baseline, which always predicts the largest true class."""
    return divide(matrix.sum(axis=-1).max(axis=-1), matrix.sum(axis=(-2, -1)))


def recall(matrix: Array) -> Array:
    """Return the recall (sensitivity) of each class (…, K)."""
    return divide(_diagonal(matrix), matrix.sum(axis=-1))


def precision(matrix: Array) -> Array:
    """Return the precision of each class (…, K)."""
    return divide(_diagonal(matrix), matrix.sum(axis=-2))


def specificity(matrix: Array) -> Array:
    """Return the specificity of each class against the rest (…, K)."""
    n_true = matrix.sum(axis=-1)
    n_predicted = matrix.sum(axis=-2)
    n_others = matrix.sum(axis=(-2, -1))[..., None] - n_true
    return divide(n_others - (n_predicted - _diagonal(matrix)), n_others)


def f1(matrix: Array) -> Array:
    """Return the F1 score of each class (…, K); 0 for a class that occurs only as truth or only as prediction."""
    return divide(2 * _diagonal(matrix), matrix.sum(axis=-1) + matrix.sum(axis=-2))


def balanced_accuracy(matrix: Array) -> Array:
    """Return the mean recall of the classes that occur."""
    return mean_of_defined(recall(matrix))


def macro_f1(matrix: Array) -> Array:
    """Return the mean F1 score of the classes that occur as truth or as prediction."""
    return mean_of_defined(f1(matrix))


def weighted_f1(matrix: Array) -> Array:
    """Return the mean F1 score of the classes, weighted by their true frequency."""
    n_true = matrix.sum(axis=-1)
    return divide((n_true * np.nan_to_num(f1(matrix))).sum(axis=-1), n_true.sum(axis=-1))


def kappa(matrix: Array, power: int = 0) -> Array:
    """Return Cohen's kappa, with disagreements weighted by distance ** power: 0 unweighted, 1 linear, 2 quadratic.

    It is 0 where truth and predictions are the same single class throughout.
    """
    distance = _compute_distance(matrix)
    weight = (distance > 0).astype(float) if power == 0 else distance.astype(float) ** power
    observed = (matrix * weight).sum(axis=(-2, -1)) * matrix.sum(axis=(-2, -1), dtype=float)
    n_true = matrix.sum(axis=-1, dtype=float)
    n_predicted = matrix.sum(axis=-2, dtype=float)
    expected = np.einsum("...i,ij,...j->...", n_true, weight, n_predicted)
    return np.where(expected > 0, 1 - divide(observed, expected), np.where(n_true.sum(axis=-1) > 0, 0.0, np.nan))


def mean_absolute_error(matrix: Array) -> Array:
    """Return the mean distance between true and predicted class, in grades."""
    distance = _compute_distance(matrix)
    return divide((matrix * distance).sum(axis=(-2, -1)), matrix.sum(axis=(-2, -1)))


def divide(numerator: Array, denominator: Array) -> Array:
    """Divide, with NaN where the denominator is 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator > 0)


def mean_of_defined(values: Array) -> Array:
    """Return the mean over the last axis without NaN; NaN where nothing else is left."""
    is_defined = ~np.isnan(values)
    return divide(np.where(is_defined, values, 0.0).sum(axis=-1), is_defined.sum(axis=-1))


def _diagonal(matrix: Array) -> Array:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _compute_distance(matrix: Array) -> Array:
    labels = np.arange(matrix.shape[-1])
    return np.abs(labels[:, None] - labels)
