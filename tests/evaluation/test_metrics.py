"""Metrics equal their definitions, and hold where a class is absent or everything is one class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from parfocal.evaluation.metrics import judge
from parfocal.evaluation.predictions import Predictions


def _predictions(truth: list[int], probabilities: np.ndarray) -> Predictions:
    ids = tuple(map(str, range(len(truth))))
    names = tuple(f"class {number}" for number in range(probabilities.shape[1]))
    return Predictions(ids, ids, np.array(truth), probabilities, names)


@given(classes=st.integers(2, 5), seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_figures_follow_from_the_confusion_matrix(classes: int, seed: int, count: int) -> None:
    dice = np.random.default_rng(seed)
    truth = dice.integers(0, classes, count)
    judged = judge(_predictions(truth.tolist(), dice.dirichlet(np.ones(classes), count)))
    confusion = np.array(judged["confusion"])
    present = confusion.sum(axis=1) > 0
    recall = confusion.diagonal()[present] / confusion.sum(axis=1)[present]
    assert confusion.sum() == judged["count"] == count
    assert judged["accuracy"] == pytest.approx(confusion.trace() / count)
    assert judged["majority_accuracy"] == pytest.approx(np.bincount(truth).max() / count)
    assert judged["balanced_accuracy"] == pytest.approx(recall.mean())
    expected = confusion.sum(axis=1) @ confusion.sum(axis=0) / count**2
    if expected < 1:
        assert judged["kappa"] == pytest.approx((judged["accuracy"] - expected) / (1 - expected))


def test_two_classes_against_the_reference() -> None:
    dice = np.random.default_rng(1)
    truth = dice.integers(0, 2, 200)
    blast = np.clip(0.3 * truth + dice.random(200) * 0.7, 0.001, 0.999)
    judged = judge(_predictions(truth.tolist(), np.stack([1 - blast, blast], axis=1)))
    assert judged["auc"] == pytest.approx(sk.roc_auc_score(truth, blast))
    assert judged["loss"] == pytest.approx(sk.log_loss(truth, blast))
    assert judged["per_class"]["class 1"]["recall"] == pytest.approx(sk.recall_score(truth, blast > 0.5))
    assert judged["per_class"]["class 1"]["precision"] == pytest.approx(sk.precision_score(truth, blast > 0.5))


def test_grades_are_weighed_by_their_distance() -> None:
    near, far = np.eye(5)[[0, 1, 2, 3, 3]], np.eye(5)[[0, 1, 2, 3, 0]]
    truth = [0, 1, 2, 3, 4]
    assert judge(_predictions(truth, near))["quadratic_kappa"] > judge(_predictions(truth, far))["quadratic_kappa"]


def test_saying_one_class_always_is_the_majority_and_no_better() -> None:
    judged = judge(_predictions([0, 0, 0, 1], np.tile([0.9, 0.1], (4, 1))))
    assert judged["accuracy"] == judged["majority_accuracy"] == 0.75
    assert judged["balanced_accuracy"] == 0.5
    assert judged["kappa"] == 0
    assert judged["auc"] == 0.5
    assert judged["per_class"]["class 1"]["precision"] is None


def test_one_true_class_leaves_unknown_what_cannot_be_known() -> None:
    judged = judge(_predictions([0, 0], np.array([[0.9, 0.1], [0.8, 0.2]])))
    assert judged["auc"] is None
    assert judged["per_class"]["class 1"]["recall"] is None
    assert judged["kappa"] == 0


def test_without_truth_nothing_is_judged() -> None:
    assert judge(_predictions([0, -1], np.full((2, 2), 0.5))) == {"count": 2, "labelled": False}
