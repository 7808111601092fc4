"""The decision rule: how the predicted class follows from the class probabilities (`decide` in the recipe)."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Self, get_args

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat

from parfocal.errors import UsageError, did_you_mean
from parfocal.evaluation.confusion import confusion_matrix
from parfocal.evaluation.metrics import get_metric
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.thresholds import (
    apply_thresholds,
    compute_expected_grades,
    shrink_thresholds,
    tune_thresholds,
)
from parfocal.evaluation.validation_decision import (
    DecideFunction,
    PredictedBatch,
    ValidationDecision,
    ValidationSplit,
)
from parfocal.recipe import Recipe
from parfocal.recipe_schema import DecisionRuleName, EvaluationConfig

RULES: tuple[DecisionRuleName, ...] = get_args(DecisionRuleName)
RULE_METRICS = ("accuracy", "kappa", "quadratic_kappa")
"""The metrics that decision rules are shown side by side with."""


def _check_order(thresholds: tuple[float, ...]) -> tuple[float, ...]:
    if any(lower > higher for lower, higher in pairwise(thresholds)):
        raise ValueError("thresholds between grades must not decrease")
    return thresholds


@dataclass(frozen=True)
class DecisionRule(ValidationDecision):
    """The rule in force, and what the rules need: thresholds between ordered grades, and the costs of the recipe.

    The thresholds are fitted on validation whichever rule is in force, so that the rules can be shown side by side.
    """

    name = "decision_rule"
    section = "decisions"
    option = "decide"

    rule: DecisionRuleName
    ordered: bool = False
    thresholds: Annotated[tuple[FiniteFloat, ...], AfterValidator(_check_order)] = ()
    costs: tuple[Annotated[FiniteFloat, Field(ge=0)], ...] = ()

    @classmethod
    def check(cls, option: Any, config: EvaluationConfig, n_classes: int) -> None:
        """Reject a rule that is unknown or does not fit the classes."""
        if option not in RULES:
            raise UsageError(f"decide={option} is not a decision rule. {did_you_mean(str(option), RULES)}")
        if option in ("mean", "thresholds") and not config.ordered:
            raise UsageError(f"decide={option} needs ordered classes (grades). Set ordered=true in the recipe.")
        if option == "cost" and not config.costs and not config.ordered:
            raise UsageError("decide=cost needs one cost for each class. Set costs in the recipe, such as costs=1,5.")
        if config.costs and len(config.costs) != n_classes:
            raise UsageError(f"costs has {len(config.costs)} numbers, and there are {n_classes} classes.")

    @classmethod
    def default_option(cls, recipe: Recipe) -> DecisionRuleName:
        """Return the rule of the recipe."""
        return recipe.decision_rule

    @classmethod
    def fit(cls, valid: ValidationSplit, option: Any) -> Self:
        """Tune thresholds between ordered grades, and shrink them."""
        calibrated = valid.calibrated
        config = valid.config
        n_classes = len(calibrated.classes)
        cls.check(option, config, n_classes)
        thresholds: tuple[float, ...] = ()
        if config.ordered:
            grades = compute_expected_grades(calibrated.probabilities)
            tuned = tune_thresholds(grades, calibrated.truth, n_classes)
            thresholds = tuple(shrink_thresholds(tuned, len(calibrated)).tolist())
        return cls(option, config.ordered, thresholds, config.costs)

    @property
    def option_value(self) -> DecisionRuleName:
        """The rule, which fits the decision again."""
        return self.rule

    @property
    def rules(self) -> list[DecisionRuleName]:
        """The rules to show side by side. For grades without costs of their own, `cost` is the same as `mean`."""
        names: list[DecisionRuleName] = ["likeliest", "mean", "thresholds"] if self.ordered else ["likeliest"]
        return [*names, "cost"] if self.costs or self.rule == "cost" else names

    def predict_labels(self, probabilities: np.ndarray, rule: DecisionRuleName | None = None) -> np.ndarray:
        """Return the class that the rule in force, or another rule, predicts from calibrated probabilities."""
        rule = rule or self.rule
        n_classes = probabilities.shape[1]
        if rule == "likeliest":
            return probabilities.argmax(axis=1)
        if rule == "cost":
            return (probabilities @ self._build_cost_matrix(n_classes)).argmin(axis=1)
        thresholds = np.array(self.thresholds) if rule == "thresholds" else np.arange(n_classes - 1) + 0.5
        return apply_thresholds(compute_expected_grades(probabilities), thresholds)

    def apply(self, batch: PredictedBatch) -> PredictedBatch:
        """Set the labels."""
        return replace(batch, labels=self.predict_labels(batch.probabilities))

    def evaluate(
        self, predictions: Predictions, calibrated: Predictions, labels: np.ndarray, decide: DecideFunction
    ) -> dict[str, Any] | None:
        """Return the rule in force, and accuracy and kappa under each rule; None if there is only one rule."""
        if len(self.rules) == 1:
            return None
        by_rule: dict[str, dict[str, float]] = {}
        for rule in self.rules:
            predicted = self.predict_labels(calibrated.probabilities, rule)
            matrix = confusion_matrix(calibrated.truth, predicted, len(calibrated.classes))
            by_rule[rule] = {name: float(get_metric(name).compute(matrix)) for name in RULE_METRICS}
        return {"rule": self.rule, "thresholds": list(self.thresholds), "by_rule": by_rule}

    def find_misfit(self, n_classes: int) -> str:
        """Return which field does not fit the number of classes."""
        needs_thresholds = self.rule == "thresholds" or bool(self.thresholds)
        for name, values, expected in (
            ("thresholds", self.thresholds, n_classes - 1 if needs_thresholds else 0),
            ("costs", self.costs, n_classes if self.costs else 0),
        ):
            if len(values) != expected:
                return f"{name} has {len(values)} values"
        return ""

    def describe(self) -> str:
        """Return a sentence that says what was decided."""
        return f"The predicted class is {self.describe_class()}."

    def describe_class(self) -> str:
        """Say which class is predicted."""
        if self.rule == "likeliest":
            return "the most probable class"
        if self.rule == "mean":
            return "the mean grade (the sum of each grade times its probability), rounded"
        if self.rule == "thresholds":
            thresholds = ", ".join(f"{threshold:.3g}" for threshold in self.thresholds)
            return f"the mean grade (the sum of each grade times its probability), cut at the thresholds {thresholds}"
        per_grade = " for each squared grade of distance" if self.ordered else ""
        costs = ", ".join(f"{cost:g}" for cost in self.costs or (1.0,))
        return f"the class of the lowest expected cost (cost of missing each class{per_grade}: {costs})"

    def _build_cost_matrix(self, n_classes: int) -> np.ndarray:
        """Return the cost of each true class (rows) if each class is predicted (columns)."""
        labels = np.arange(n_classes)
        distance = np.abs(labels[:, None] - labels)
        errors = distance**2 if self.ordered else distance > 0
        return errors * np.array(self.costs or np.ones(n_classes))[:, None]
