"""Metrics of confusion matrices equal scikit-learn's, for one matrix and for many."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from parfocal.evaluation import confusion
from parfocal.evaluation.predictions import Predictions
from tests.evaluation.make_predictions import random_predictions


@given(predictions=random_predictions())
def test_metrics_equal_those_of_scikit_learn(predictions: Predictions) -> None:
    truth = predictions.truth
    predicted = predictions.predicted
    labels = np.arange(len(predictions.classes))
    matrix = confusion.confusion_matrix(truth, predicted, len(labels))
    assert matrix.tolist() == sklearn_metrics.confusion_matrix(truth, predicted, labels=labels).tolist()
    assert confusion.accuracy(matrix) == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    with warnings.catch_warnings():
        # scikit-learn warns about predicted classes that are never true, and leaves them out of the mean as well.
        warnings.simplefilter("ignore", UserWarning)
        expected = sklearn_metrics.balanced_accuracy_score(truth, predicted)
    assert confusion.balanced_accuracy(matrix) == pytest.approx(expected)
    for average, metric in (("macro", confusion.macro_f1), ("weighted", confusion.weighted_f1)):
        assert metric(matrix) == pytest.approx(sklearn_metrics.f1_score(truth, predicted, average=average))
    expected = sklearn_metrics.mean_absolute_error(truth, predicted)
    assert confusion.mean_absolute_error(matrix) == pytest.approx(expected)
    for power, weights in enumerate((None, "linear", "quadratic")):
        if len(np.union1d(truth, predicted)) > 1:
            expected = sklearn_metrics.cohen_kappa_score(truth, predicted, labels=labels, weights=weights)
            assert confusion.kappa(matrix, power) == pytest.approx(expected, abs=1e-12)
        else:
            assert confusion.kappa(matrix, power) == 0


@given(predictions=random_predictions())
def test_class_metrics_equal_those_of_scikit_learn_and_are_nan_where_it_divides_by_0(predictions: Predictions) -> None:
    matrix = confusion.confusion_matrix(predictions.truth, predictions.predicted, len(predictions.classes))
    nan: Any = {"zero_division": np.nan}
    for label in range(len(predictions.classes)):
        is_true = predictions.truth == label
        is_predicted = predictions.predicted == label
        for metric, expected in (
            (confusion.recall, sklearn_metrics.recall_score(is_true, is_predicted, **nan)),
            (confusion.precision, sklearn_metrics.precision_score(is_true, is_predicted, **nan)),
            (confusion.specificity, sklearn_metrics.recall_score(~is_true, ~is_predicted, **nan)),
            (confusion.f1, sklearn_metrics.f1_score(is_true, is_predicted, **nan)),
        ):
            assert metric(matrix)[label] == pytest.approx(expected, nan_ok=True)


@given(seed=st.integers(0, 1000), n_classes=st.integers(2, 4))
def test_many_matrices_give_what_each_gives_alone(seed: int, n_classes: int) -> None:
    matrices = np.random.default_rng(seed).integers(0, 4, (6, n_classes, n_classes))
    for metric in (
        confusion.accuracy,
        confusion.majority_accuracy,
        confusion.balanced_accuracy,
        confusion.macro_f1,
        confusion.weighted_f1,
        confusion.kappa,
    ):
        np.testing.assert_allclose(metric(matrices), [metric(matrix) for matrix in matrices])


def test_metrics_of_an_empty_matrix_are_undefined() -> None:
    matrix = np.zeros((3, 3), int)
    for metric in (
        confusion.accuracy,
        confusion.balanced_accuracy,
        confusion.macro_f1,
        confusion.weighted_f1,
        confusion.kappa,
        confusion.mean_absolute_error,
    ):
        assert np.isnan(metric(matrix))
