"""The decision rule in the metadata describes how the predicted class follows from the probabilities."""

from typing import Any

import numpy as np
import pytest

from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision
from parfocal.evaluation.predictions import Predictions
from parfocal.exporters.metadata import describe_decision_rule
from parfocal.recipe import load_recipe


def _make_predictions(n_classes: int) -> Predictions:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    probabilities = (rng.dirichlet(np.ones(3), 200) + np.eye(3)[truth])[:, :n_classes]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    ids = tuple(map(str, range(200)))
    return Predictions(ids, ids, truth % n_classes, probabilities, ("a", "b", "c")[:n_classes])


@pytest.mark.parametrize(
    ("n_classes", "changes", "goal", "rule"),
    [
        (2, {}, None, "the most probable class"),
        (2, {}, "specificity=0.8", "b if its probability is at least "),
        (3, {"ordered": True}, "kappa", "the expected grade (sum of each grade times its probability), cut at"),
        (
            3,
            {"ordered": True, "referable": 1},
            "cost=5",
            "the most probable class; positive if the probabilities of b",
        ),
    ],
)
def test_the_decision_rule_is_described(n_classes: int, changes: dict[str, Any], goal: str | None, rule: str) -> None:
    recipe, predictions = load_recipe(None, **changes), _make_predictions(n_classes)
    decision = fit_decision(predictions, DecisionOptions(goal), Decision(), recipe.evaluation, None)
    assert describe_decision_rule(predictions.classes, recipe, decision).startswith(rule)
