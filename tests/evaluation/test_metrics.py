"""A judgement follows from its predictions, and holds where a class is absent or everything is one class."""

import numpy as np
import pytest
from hypothesis import given
from sklearn import metrics as sk

from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions
from tests.evaluation.make_predictions import make_predictions, random_predictions


@given(predictions=random_predictions())
def test_figures_follow_from_the_confusion_matrix(predictions: Predictions) -> None:
    judged, count = compute_metrics(predictions), len(predictions)
    confusion = np.array(judged["confusion"])
    assert confusion.sum() == judged["count"] == count
    assert judged["accuracy"] == pytest.approx(confusion.trace() / count)
    assert judged["majority_accuracy"] == pytest.approx(np.bincount(predictions.truth).max() / count)
    for label, name in enumerate(predictions.classes):
        one = judged["per_class"][name]
        assert one["support"] == confusion[label].sum()
        assert one["predicted"] == confusion[:, label].sum()


@given(predictions=random_predictions())
def test_areas_are_the_mean_of_one_class_against_the_rest_or_of_the_second_of_two(predictions: Predictions) -> None:
    several, found = len(predictions.classes), compute_metrics(predictions)
    labels = [1] if several == 2 else range(several)
    sides = {label: predictions.truth == label for label in labels}
    known = {label: side for label, side in sides.items() if side.any() and not side.all()}
    areas = [sk.roc_auc_score(side, predictions.probabilities[:, label]) for label, side in known.items()]
    assert found["auc"] == (pytest.approx(np.mean(areas)) if areas else None)
    there = {label: side for label, side in sides.items() if side.any()}
    areas = [sk.average_precision_score(side, predictions.probabilities[:, label]) for label, side in there.items()]
    assert found["average_precision"] == (pytest.approx(np.mean(areas)) if areas else None)


def test_medmnist_judges_the_same_scores_alike() -> None:
    # What the evaluator of the package medmnist 3.0.2 gives for these labels and scores of its set retinamnist; the
    # mean over classes of the area under the ROC curve of one against the rest, and the share of largest scores.
    dice = np.random.default_rng(400)
    truth = dice.choice(5, 400, p=[0.435, 0.115, 0.23, 0.17, 0.05])
    scores = dice.dirichlet(np.ones(5), 400) + 0.3 * np.eye(5)[truth] * dice.random((400, 1))
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 6)
    found = compute_metrics(make_predictions(truth, scores))
    assert found["auc"] == pytest.approx(0.7484523816616632, abs=1e-12)
    assert found["accuracy"] == 0.3675


def test_grades_are_weighed_by_their_distance() -> None:
    near, far = np.eye(5)[[0, 1, 2, 3, 3]], np.eye(5)[[0, 1, 2, 3, 0]]
    truth = [0, 1, 2, 3, 4]
    assert (
        compute_metrics(make_predictions(truth, near))["quadratic_kappa"]
        > compute_metrics(make_predictions(truth, far))["quadratic_kappa"]
    )
    assert compute_metrics(make_predictions(truth, near))["grade_error"] == 0.2
    assert compute_metrics(make_predictions(truth, far))["grade_error"] == 0.8


def test_saying_one_class_always_is_the_majority_and_no_better() -> None:
    judged = compute_metrics(make_predictions([0, 0, 0, 1], np.tile([0.9, 0.1], (4, 1))))
    assert judged["accuracy"] == judged["majority_accuracy"] == 0.75
    assert judged["balanced_accuracy"] == 0.5
    assert judged["kappa"] == 0
    assert judged["auc"] == 0.5
    assert judged["per_class"]["class 1"]["precision"] is None


def test_one_true_class_leaves_unknown_what_cannot_be_known() -> None:
    judged = compute_metrics(make_predictions([0, 0], np.array([[0.9, 0.1], [0.8, 0.2]])))
    assert judged["auc"] is None
    assert judged["average_precision"] is None
    assert judged["per_class"]["class 1"]["recall"] is None
    assert judged["per_class"]["class 0"]["specificity"] is None
    assert judged["kappa"] == 0


def test_a_single_image_is_judged() -> None:
    judged = compute_metrics(make_predictions([1], np.array([[0.2, 0.5, 0.3]])))
    assert (judged["accuracy"], judged["balanced_accuracy"], judged["macro_f1"], judged["kappa"]) == (1, 1, 1, 0)
    assert judged["loss"] == pytest.approx(-np.log(0.5))
    assert judged["auc"] is None


def test_without_truth_nothing_is_judged() -> None:
    assert compute_metrics(make_predictions([0, -1], np.full((2, 2), 0.5))) == {"count": 2, "labelled": False}
