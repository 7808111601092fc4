"""The predicted class follows from the probabilities by a rule that is fitted on validation and kept with the run."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from parfocal.errors import UsageError
from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision, fit_decision_rule
from parfocal.evaluation.decision_rule import DecisionRule
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.operating_point import OperatingPoint
from parfocal.evaluation.patients import FellowEyes
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.validation_decision import ValidationSplit
from parfocal.recipe import load_recipe
from tests.evaluation.make_predictions import make_predictions, random_predictions

GRADES = load_recipe(None, ordered=True).evaluation
GRADE_NAMES = ("0", "1", "2", "3", "4")


def _draw_grades(seed: int = 0, n_images: int = 400) -> Predictions:
    """Return uncertain predictions of rare higher grades, whose mean grade leans toward the middle."""
    rng = np.random.default_rng(seed)
    truth = np.minimum(rng.geometric(0.6, n_images) - 1, 4)
    scores = truth + rng.normal(0, 0.8, n_images)
    logits = -np.abs(scores[:, None] - np.arange(5)) + rng.normal(0, 0.3, (n_images, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    groups = [str(number // 2) for number in range(n_images)]
    return make_predictions(truth, probabilities, groups)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, "likeliest"),
        ({"select": "quadratic_kappa"}, "likeliest"),
        ({"ordered": True}, "likeliest"),
        ({"ordered": True, "select": "quadratic_kappa"}, "mean"),
        ({"ordered": True, "select": "quadratic_kappa", "loss": "cumulative_link"}, "mean"),
        ({"ordered": True, "select": "quadratic_kappa", "loss": "regression"}, "likeliest"),
        ({"ordered": True, "select": "quadratic_kappa", "decide": "likeliest"}, "likeliest"),
        ({"ordered": True, "decide": "thresholds"}, "thresholds"),
        ({"decide": "cost", "costs": [1, 5]}, "cost"),
    ],
)
def test_the_default_rule_follows_from_order_and_selection(changes: dict[str, Any], rule: str) -> None:
    assert load_recipe(None, **changes).decision_rule == rule


@pytest.mark.parametrize("recipe", ["cifar10", "leukemia-sgd", "leukemia-adam", "fundus", "fundus-cifar10"])
def test_the_recipes_of_the_documents_predict_the_most_probable_class(recipe: str) -> None:
    predictions = _draw_grades()
    decision = fit_decision_rule(predictions, load_recipe(recipe))
    assert decision == Decision()
    assert decision.decide(predictions).predicted.tolist() == predictions.probabilities.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"decide": "mean"}, "decide=mean needs ordered classes"),
        ({"decide": "thresholds"}, "Set ordered=true"),
        ({"decide": "cost"}, "decide=cost needs one cost for each class, such as costs=1,5"),
        ({"costs": [0, 0]}, "costs are all 0"),
        ({"decide": "vote"}, "decide=vote is not a choice"),
    ],
)
def test_a_rule_that_the_classes_do_not_allow_is_rejected(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        load_recipe(None, **changes)


def test_a_rule_that_evaluate_cannot_apply_is_rejected() -> None:
    with pytest.raises(UsageError, match="decide=thresholds needs ordered classes"):
        DecisionOptions(decide="thresholds").check(load_recipe().evaluation, GRADE_NAMES, None)
    with pytest.raises(UsageError, match=r"decide=kappa is not a decision rule\."):
        DecisionOptions(decide="kappa").check(GRADES, GRADE_NAMES, None)
    costs = load_recipe(None, costs=[1, 2]).evaluation
    with pytest.raises(UsageError, match="costs has 2 numbers, and there are 5 classes"):
        DecisionRule.check("cost", costs, 5)


def test_each_rule_predicts_what_it_says() -> None:
    probabilities = np.array([[0.5, 0.0, 0.3, 0.2], [0.1, 0.6, 0.2, 0.1]])
    rule = DecisionRule("mean", True, (0.2, 0.4, 0.8))
    assert rule.predict_labels(probabilities, "likeliest").tolist() == [0, 1]
    assert rule.predict_labels(probabilities).tolist() == [1, 1]
    assert rule.predict_labels(probabilities, "thresholds").tolist() == [3, 3]


def test_missing_a_costly_class_is_avoided() -> None:
    probabilities = np.array([[0.8, 0.2], [0.9, 0.1]])
    assert DecisionRule("cost", costs=(1.0, 5.0)).predict_labels(probabilities).tolist() == [1, 0]
    assert DecisionRule("cost", costs=(1.0, 1.0)).predict_labels(probabilities).tolist() == [0, 0]


@given(predictions=random_predictions())
def test_the_lowest_squared_distance_is_expected_at_the_rounded_mean_grade(predictions: Predictions) -> None:
    probabilities = predictions.probabilities
    mean = probabilities @ np.arange(probabilities.shape[1])
    is_tied = np.isclose(np.abs(mean - np.floor(mean) - 0.5), 0)
    by_cost = DecisionRule("cost", ordered=True).predict_labels(probabilities)
    by_mean = DecisionRule("mean", ordered=True).predict_labels(probabilities)
    assert (by_cost == by_mean)[~is_tied].all()


@given(predictions=random_predictions())
def test_thresholds_do_not_decrease_and_no_rule_leaves_the_grades(predictions: Predictions) -> None:
    rule = DecisionRule.fit(ValidationSplit(predictions, predictions, GRADES), "thresholds")
    assert list(rule.thresholds) == sorted(rule.thresholds)
    for name in rule.rules:
        assert set(rule.predict_labels(predictions.probabilities, name)) <= set(range(len(predictions.classes)))


def test_thresholds_improve_kappa_on_images_that_did_not_choose_them() -> None:
    recipe = load_recipe(None, ordered=True, decide="thresholds")
    decision = fit_decision(_draw_grades(), DecisionOptions(), Decision(), recipe)
    decisions = evaluate_split(decision.decide(_draw_grades(1)), GRADES, decision)["decisions"]
    assert decisions["rule"] == "thresholds"
    by_rule = decisions["by_rule"]
    assert list(by_rule) == ["likeliest", "mean", "thresholds"]
    assert by_rule["thresholds"]["quadratic_kappa"] > by_rule["mean"]["quadratic_kappa"]


@pytest.mark.parametrize("rule", ["likeliest", "mean", "thresholds", "cost"])
def test_the_metrics_of_labels_follow_the_rule_and_those_of_probabilities_do_not(rule: str) -> None:
    recipe = load_recipe(None, ordered=True, decide=rule, costs=[1, 1, 1, 2, 4])
    test = _draw_grades(1)
    decision = fit_decision(_draw_grades(), DecisionOptions(), Decision(), recipe)
    metrics = evaluate_split(decision.decide(test), recipe.evaluation, decision)
    likeliest = compute_metrics(test)
    for name in ("accuracy", "kappa", "quadratic_kappa"):
        assert metrics[name] == metrics["decisions"]["by_rule"][rule][name]
        assert metrics["decisions"]["by_rule"]["likeliest"][name] == likeliest[name]
    for name in ("auc", "loss", "brier", "ece"):
        assert metrics[name] == likeliest[name]
    assert decision.apply(test.probabilities).labels.tolist() == decision.decide(test).predicted.tolist()


def test_unordered_classes_have_one_rule_and_no_table_of_rules() -> None:
    decision = fit_decision(_draw_grades(), DecisionOptions(), Decision(), load_recipe())
    assert decision.rule == "likeliest"
    assert "decisions" not in evaluate_split(_draw_grades(), load_recipe().evaluation, decision)


def test_a_rule_chosen_after_training_stays_until_none_returns_to_that_of_the_recipe() -> None:
    recipe = load_recipe(None, ordered=True, select="quadratic_kappa")
    first = fit_decision(_draw_grades(), DecisionOptions(decide="thresholds"), Decision(), recipe)
    again = fit_decision(_draw_grades(), DecisionOptions(), first, recipe)
    undone = fit_decision(_draw_grades(), DecisionOptions(decide="none"), again, recipe)
    assert (first.rule, again.rule, undone.rule) == ("thresholds", "thresholds", "mean")


def test_an_operating_point_decides_the_label_of_two_classes_and_leaves_grades_to_the_rule() -> None:
    probabilities = np.array([[0.7, 0.3], [0.9, 0.1]])
    rule = DecisionRule("cost", costs=(1.0, 100.0))
    assert Decision((rule,)).predict_labels(probabilities).tolist() == [1, 1]
    assert Decision((rule, OperatingPoint("cost", 5.0, 0.2))).predict_labels(probabilities).tolist() == [1, 0]
    grades = np.array([[0.6, 0.1, 0.3]])
    decision = Decision((DecisionRule("mean", True), OperatingPoint("cost", 5.0, 0.2, 2)))
    assert decision.predict_labels(grades).tolist() == [1]


def test_combined_images_of_a_patient_follow_the_rule_too() -> None:
    recipe = load_recipe(None, ordered=True, decide="mean")
    decision = fit_decision(_draw_grades(), DecisionOptions(fellow_eyes=True), Decision(), recipe)
    test = decision.decide(_draw_grades(1))
    metrics = evaluate_split(test, GRADES, decision)
    fellow_eyes = decision.get(FellowEyes)
    assert fellow_eyes is not None
    expected = compute_metrics(decision.decide(fellow_eyes.fuse(test)))
    assert metrics["fellow_eyes"]["confusion"] == expected["confusion"]
    likeliest = evaluate_split(test, GRADES)["by_group"]["worst"]
    assert metrics["by_group"]["worst"]["confusion"] != likeliest["confusion"]


@pytest.mark.parametrize("rule", ["likeliest", "mean", "thresholds"])
def test_the_rule_of_an_epoch_is_that_of_the_evaluation(rule: str) -> None:
    recipe = load_recipe(None, ordered=True, decide=rule)
    predictions = _draw_grades()
    decision = fit_decision(predictions, DecisionOptions(), Decision(), recipe)
    expected = decision.decide(predictions).predicted
    assert fit_decision_rule(predictions, recipe).decide(predictions).predicted.tolist() == expected.tolist()
