"""How an answer follows from probabilities is said in words that fit what was decided."""

from typing import Any

import numpy as np
import pytest

from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision
from parfocal.evaluation.predictions import Predictions
from parfocal.exporters.metadata import describe_decision_rule
from parfocal.recipe import load_recipe


def _make_predictions() -> Predictions:
    dice = np.random.default_rng(0)
    truth = dice.integers(0, 3, 200)
    probabilities = dice.dirichlet(np.ones(3), 200) + np.eye(3)[truth]
    ids = tuple(map(str, range(200)))
    return Predictions(ids, ids, truth, probabilities / 2, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("classes", "changes", "wish", "said"),
    [
        (2, {}, None, "the most probable class"),
        (2, {}, "specificity=0.8", "b where its probability is at least "),
        (3, {"ordered": True}, "kappa", "the mean grade (each grade times its probability, summed), cut by"),
        (
            3,
            {"ordered": True, "referable": 1},
            "cost=5",
            "the most probable class; positive where the probabilities of b",
        ),
    ],
)
def test_how_a_class_follows_is_said_in_words(
    classes: int, changes: dict[str, Any], wish: str | None, said: str
) -> None:
    made, drawn = load_recipe(None, **changes), _make_predictions()
    if classes == 2:
        two = drawn.probabilities[:, :2] / drawn.probabilities[:, :2].sum(axis=1, keepdims=True)
        drawn = Predictions(drawn.ids, drawn.groups, drawn.truth % 2, two, ("a", "b"))
    decision = fit_decision(drawn, DecisionOptions(wish), Decision(), made.evaluation, None)
    assert describe_decision_rule(["a", "b", "c"][:classes], made, decision).startswith(said)
