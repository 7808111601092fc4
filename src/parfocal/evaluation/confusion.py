"""Figures that follow from confusion matrices alone: rows are the truth, columns the answers.

Each takes matrices (…, K, K), of images or of how often images were drawn, and gives one figure for each: not a number
where it cannot be said. The bootstrap needs thousands at once, for which scikit-learn, whose figures these are, takes
one call each; the tests hold them against it.
"""

import numpy as np

Array = np.ndarray


def confusion_matrix(truth: Array, predicted: Array, n_classes: int) -> Array:
    """Count the images of each true class (rows) by their answer (columns)."""
    return np.bincount(truth * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(matrix: Array) -> Array:
    """Give the share of right answers."""
    return divide(_diagonal(matrix).sum(axis=-1), matrix.sum(axis=(-2, -1)))


def majority_accuracy(matrix: Array) -> Array:
    """Give the accuracy of always naming the largest true class."""
    return divide(matrix.sum(axis=-1).max(axis=-1), matrix.sum(axis=(-2, -1)))


def recall(matrix: Array) -> Array:
    """Give for each class the share of its images that are answered with it (…, K): the sensitivity."""
    return divide(_diagonal(matrix), matrix.sum(axis=-1))


def precision(matrix: Array) -> Array:
    """Give for each class the share of right ones among its answers (…, K)."""
    return divide(_diagonal(matrix), matrix.sum(axis=-2))


def specificity(matrix: Array) -> Array:
    """Give for each class the share of the other classes' images that are not answered with it (…, K)."""
    true, said, right = matrix.sum(axis=-1), matrix.sum(axis=-2), _diagonal(matrix)
    others = matrix.sum(axis=(-2, -1))[..., None] - true
    return divide(others - (said - right), others)


def f1(matrix: Array) -> Array:
    """Give for each class the harmonic mean of precision and recall (…, K); 0 where it is only said or only true."""
    return divide(2 * _diagonal(matrix), matrix.sum(axis=-1) + matrix.sum(axis=-2))


def balanced_accuracy(matrix: Array) -> Array:
    """Give the mean recall of the classes that are there."""
    return mean_of_defined(recall(matrix))


def macro_f1(matrix: Array) -> Array:
    """Give the mean F1 of the classes that are there or were said."""
    return mean_of_defined(f1(matrix))


def weighted_f1(matrix: Array) -> Array:
    """Give the mean F1 of the classes, each by its true share."""
    true = matrix.sum(axis=-1)
    return divide((true * np.nan_to_num(f1(matrix))).sum(axis=-1), true.sum(axis=-1))


def kappa(matrix: Array, power: int = 0) -> Array:
    """Give Cohen's kappa; a disagreement weighs its distance to the power: 0 unweighted, 1 linear, 2 quadratic.

    It is 0 where truth and answers are one and the same class throughout, for nothing was told apart.
    """
    labels = np.arange(matrix.shape[-1])
    distance = np.abs(labels[:, None] - labels)
    weight = (distance > 0).astype(float) if power == 0 else distance.astype(float) ** power
    observed = (matrix * weight).sum(axis=(-2, -1)) * matrix.sum(axis=(-2, -1), dtype=float)
    true, said = matrix.sum(axis=-1, dtype=float), matrix.sum(axis=-2, dtype=float)
    expected = np.einsum("...i,ij,...j->...", true, weight, said)
    return np.where(expected > 0, 1 - divide(observed, expected), np.where(true.sum(axis=-1) > 0, 0.0, np.nan))


def mean_absolute_error(matrix: Array) -> Array:
    """Give the mean distance between true and answered class, in classes: the mean absolute error of grades."""
    labels = np.arange(matrix.shape[-1])
    distance = np.abs(labels[:, None] - labels)
    return divide((matrix * distance).sum(axis=(-2, -1)), matrix.sum(axis=(-2, -1)))


def divide(numerator: Array, denominator: Array) -> Array:
    """Divide; not a number where there is nothing to divide by."""
    return np.divide(
        numerator,
        denominator,
        out=np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan),
        where=denominator > 0,
    )


def mean_of_defined(values: Array) -> Array:
    """Give the mean over the last axis of what is a number; not a number where nothing is."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def _diagonal(matrix: Array) -> Array:
    return np.diagonal(matrix, axis1=-2, axis2=-1)
