"""Figures of confusion matrices equal scikit-learn's, one matrix or many."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from parfocal.evaluation import confusion as of
from parfocal.evaluation.predictions import Predictions
from tests.evaluation.make_predictions import random_predictions


@given(predictions=random_predictions())
def test_they_equal_scikit_learns(predictions: Predictions) -> None:
    truth, said, labels = predictions.truth, predictions.predicted, np.arange(len(predictions.classes))
    matrix = of.confusion_matrix(truth, said, len(labels))
    assert matrix.tolist() == sk.confusion_matrix(truth, said, labels=labels).tolist()
    assert of.accuracy(matrix) == pytest.approx(sk.accuracy_score(truth, said))
    with warnings.catch_warnings():
        # scikit-learn warns of answers that are no true class, and leaves them out of the mean as well.
        warnings.simplefilter("ignore", UserWarning)
        assert of.balanced_accuracy(matrix) == pytest.approx(sk.balanced_accuracy_score(truth, said))
    assert of.macro_f1(matrix) == pytest.approx(sk.f1_score(truth, said, average="macro"))
    assert of.weighted_f1(matrix) == pytest.approx(sk.f1_score(truth, said, average="weighted"))
    assert of.mean_absolute_error(matrix) == pytest.approx(sk.mean_absolute_error(truth, said))
    for power, weights in ((0, None), (1, "linear"), (2, "quadratic")):
        if len(np.union1d(truth, said)) > 1:
            reference = sk.cohen_kappa_score(truth, said, labels=labels, weights=weights)
            assert of.kappa(matrix, power) == pytest.approx(reference, abs=1e-12)
        else:
            assert of.kappa(matrix, power) == 0


@given(predictions=random_predictions())
def test_those_of_each_class_equal_scikit_learns_and_are_none_where_it_divides_by_0(predictions: Predictions) -> None:
    truth, said, several = predictions.truth, predictions.predicted, len(predictions.classes)
    matrix = of.confusion_matrix(truth, said, several)
    for label in range(several):
        true, named = truth == label, said == label
        nothing: Any = {"zero_division": np.nan}
        assert of.recall(matrix)[label] == pytest.approx(sk.recall_score(true, named, **nothing), nan_ok=True)
        assert of.precision(matrix)[label] == pytest.approx(sk.precision_score(true, named, **nothing), nan_ok=True)
        assert of.specificity(matrix)[label] == pytest.approx(sk.recall_score(~true, ~named, **nothing), nan_ok=True)
        assert of.f1(matrix)[label] == pytest.approx(sk.f1_score(true, named, **nothing), nan_ok=True)


@given(seed=st.integers(0, 1000), classes=st.integers(2, 4))
def test_many_matrices_give_what_each_gives_alone(seed: int, classes: int) -> None:
    many = np.random.default_rng(seed).integers(0, 4, (6, classes, classes))
    for figure in (of.accuracy, of.majority_accuracy, of.balanced_accuracy, of.macro_f1, of.weighted_f1, of.kappa):
        np.testing.assert_allclose(figure(many), [figure(one) for one in many])


def test_an_empty_matrix_says_nothing() -> None:
    nothing = np.zeros((3, 3), int)
    for figure in (of.accuracy, of.balanced_accuracy, of.macro_f1, of.weighted_f1, of.kappa, of.mean_absolute_error):
        assert np.isnan(figure(nothing))
