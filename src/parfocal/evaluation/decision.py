"""Everything that was decided on validation after training: calibration, decision rule, operating point and the rest.

`DECISIONS` is the registry. The fitted decisions of a run are kept in its decision.json.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import NonNegativeInt, ValidationError, create_model

from parfocal.errors import ParfocalError, UsageError, did_you_mean
from parfocal.evaluation.decision_rule import DecisionRule
from parfocal.evaluation.operating_point import OperatingPoint
from parfocal.evaluation.out_of_distribution import OodMonitor
from parfocal.evaluation.patients import FellowEyes
from parfocal.evaluation.positive_class import require_positive_class, resolve_positive_class
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referral import ConformalReferral
from parfocal.evaluation.temperature import Temperature
from parfocal.evaluation.validation_decision import PredictedBatch, ValidationDecision, ValidationSplit
from parfocal.manifest import MANIFEST_FILE, verify_file, write_listed_file
from parfocal.recipe import Recipe
from parfocal.recipe_schema import DecisionRuleName, EvaluationConfig, TtaMode

if TYPE_CHECKING:
    from parfocal.data.store import Store
    from parfocal.data.table import Table

DECISIONS: tuple[type[ValidationDecision], ...] = (
    Temperature,
    DecisionRule,
    OperatingPoint,
    ConformalReferral,
    OodMonitor,
    FellowEyes,
)
"""Every kind of validation decision, in the order in which they are applied and in which their columns appear."""

AnyDecision = TypeVar("AnyDecision", bound=ValidationDecision)


@dataclass(frozen=True)
class DecisionOptions:
    """The options of `evaluate`. None keeps what was decided before; "none", 0 and False undo it.

    `tta` is no decision, but the name of the views for test-time augmentation; "recipe" takes those of the recipe.
    `positive` is the positive class of two; "none" leaves it to the recipe and the names of the classes.
    `others` holds the options of decisions that have no parameter here.
    """

    operating_point: str | None = None
    refer: float | None = None
    tta: str | None = None
    fellow_eyes: bool | None = None
    decide: str | None = None
    positive: str | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [kind.option for kind in DECISIONS if kind.option]
        for name in self.others:
            if name not in names:
                raise UsageError(f"{name} is not an option of evaluate. {did_you_mean(name, [*names, 'tta'])}")

    def get(self, kind: type[ValidationDecision]) -> Any:
        """Return the option of a kind of decision; None to keep what was decided before."""
        return self.others.get(kind.option, getattr(self, kind.option, None)) if kind.option else None

    def choose_positive(self, previous: str) -> str:
        """Return the positive class that the options choose, or else the previous choice; "" for none."""
        return previous if self.positive is None else self.positive if _is_on(self.positive) else ""

    def check(self, config: EvaluationConfig, classes: Sequence[str], positive: int | None) -> None:
        """Reject options that can never be met, before any network runs. The recipe checks `tta`.

        `positive` is the positive class that the options choose, if it is known.
        """
        for kind in DECISIONS:
            option = self.get(kind)
            if _is_on(option):
                kind.check(option, config, len(classes))
        if _is_on(self.operating_point) and not config.referable:
            require_positive_class(positive, classes, f"operating_point={self.operating_point}")


@dataclass(frozen=True)
class Decision:
    """The fitted decisions of a run or an ensemble.

    `tta` names the views for test-time augmentation if they are not those of the recipe. `positive` is the positive
    class of two if `evaluate` chose it. `n_images` is the number of
    validation images; 0 if nothing was decided yet, as for runs of an older Parfocal.
    """

    fitted: tuple[ValidationDecision, ...] = ()
    tta: str = ""
    n_images: int = 0
    positive: str = ""

    def get(self, kind: type[AnyDecision]) -> AnyDecision | None:
        """Return the fitted decision of a kind; None if there is none."""
        return next((decision for decision in self.fitted if isinstance(decision, kind)), None)

    @property
    def temperature(self) -> float:
        """The temperature of calibration; 1 if none was fitted."""
        return self._calibration.value

    @property
    def rule(self) -> DecisionRuleName:
        """The decision rule for the predicted class."""
        decision = self.get(DecisionRule)
        return decision.rule if decision else "likeliest"

    @property
    def operating_point(self) -> OperatingPoint | None:
        """The operating point; None if there is none."""
        return self.get(OperatingPoint)

    @property
    def referral(self) -> ConformalReferral | None:
        """The referral to a human; None if there is none."""
        return self.get(ConformalReferral)

    @property
    def ood(self) -> OodMonitor | None:
        """The out-of-distribution monitor; None if there is none."""
        return self.get(OodMonitor)

    @property
    def pixel_decisions(self) -> tuple[ValidationDecision, ...]:
        """The decisions fitted on pixels: they hold for any network that reads the same images."""
        return tuple(decision for decision in self.fitted if decision.reads_pixels)

    def with_fitted(self, *decisions: ValidationDecision) -> Self:
        """Return a decision with these instead of those of the same kinds."""
        kinds = {type(decision) for decision in decisions}
        kept = [decision for decision in self.fitted if type(decision) not in kinds]
        fitted = sorted((*kept, *decisions), key=lambda decision: DECISIONS.index(type(decision)))
        return replace(self, fitted=tuple(fitted))

    def apply(self, probabilities: np.ndarray) -> PredictedBatch:
        """Return the labels, calibrated probabilities and flags that follow from a network's probabilities."""
        batch = PredictedBatch(probabilities.argmax(axis=1), probabilities)
        return self._apply_calibrated(self._calibration.apply(batch))

    def predict_labels(self, calibrated: np.ndarray) -> np.ndarray:
        """Return the predicted class of each image from calibrated probabilities."""
        return self._apply_calibrated(PredictedBatch(calibrated.argmax(axis=1), calibrated)).labels

    def decide(self, predictions: Predictions) -> Predictions:
        """Return predictions with the classes that the decision rule predicts, without any operating point."""
        rule = self.get(DecisionRule)
        # Calibration keeps the order of the classes, so the most probable class needs none.
        if rule is None or rule.rule == "likeliest":
            return replace(predictions, labels=None)
        return replace(predictions, labels=rule.predict_labels(self.calibrate(predictions).probabilities))

    def calibrate(self, predictions: Predictions) -> Predictions:
        """Return predictions with calibrated probabilities."""
        batch = PredictedBatch(predictions.predicted, predictions.probabilities)
        return replace(predictions, probabilities=self._calibration.apply(batch).probabilities)

    def evaluate(self, predictions: Predictions) -> dict[str, Any]:
        """Return what each decision reaches on labeled predictions, as sections of metrics.json."""
        calibrated = self.calibrate(predictions)
        labels = self.predict_labels(calibrated.probabilities)
        sections: dict[str, Any] = {}
        for decision in self.with_fitted(self._calibration).fitted:
            metrics = decision.evaluate(predictions, calibrated, labels, self.decide)
            if metrics is not None:
                sections[decision.section] = metrics
        return sections

    def check_classes(self, n_classes: int, path: Path) -> None:
        """Reject a decision, read from a file, that does not fit the number of classes."""
        for decision in self.fitted:
            if fault := decision.find_misfit(n_classes):
                raise ParfocalError(
                    f"{path}: {decision.name}.{fault}, which does not fit {n_classes} classes. {_describe_remedy(path)}"
                )

    def describe(self) -> list[str]:
        """Return a sentence for each decision."""
        return [decision.describe() for decision in self.fitted]

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as plain data."""
        by_name = {decision.name: decision.as_dict() for decision in self.fitted}
        fitted = {kind.name: by_name.get(kind.name) for kind in DECISIONS}
        return {**fitted, "tta": self.tta, "positive": self.positive, "n_images": self.n_images}

    def save(self, path: Path) -> None:
        """Write the decision as JSON."""
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with write_listed_file(path) as temporary_path:
            temporary_path.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a decision, and reject values out of bounds; without a file nothing is decided."""
        if not verify_file(path):
            return cls()
        remedy = _describe_remedy(path)
        try:
            # Each kind of decision, or null, with the bounds of its fields.
            kinds: dict[str, Any] = {kind.name: (kind | None, None) for kind in DECISIONS}
            schema = create_model(
                "DecisionFile",
                tta=(Literal["", TtaMode], ...),
                positive=(str, ""),
                n_images=(NonNegativeInt, ...),
                **kinds,
            )
            content = schema.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            fault = error.errors()[0]
            if fault["loc"] and fault["type"] not in ("missing", "extra_forbidden"):
                key = ".".join(map(str, fault["loc"]))
                reason = fault["msg"].removeprefix("Value error, ")
                raise ParfocalError(f"{path}: {key} is {fault['input']!r}: {reason}. {remedy}") from None
            raise ParfocalError(f"{path} is not a decision file of this version. {remedy}") from None
        except (ValueError, RecursionError):
            raise ParfocalError(f"{path} is not a decision file. {remedy}") from None
        fitted = (getattr(content, name) for name in kinds)
        settings = {name: getattr(content, name) for name in ("tta", "n_images", "positive")}
        return cls(tuple(decision for decision in fitted if decision is not None), **settings)

    @property
    def _calibration(self) -> Temperature:
        return self.get(Temperature) or Temperature()

    def _apply_calibrated(self, batch: PredictedBatch) -> PredictedBatch:
        for decision in self.fitted:
            if not isinstance(decision, Temperature):
                batch = decision.apply(batch)
        return batch


def fit_decision_rule(valid: Predictions, recipe: Recipe) -> Decision:
    """Fit the recipe's decision rule, and the calibration that it needs, to predict the classes of an epoch."""
    # The most probable class follows without any fit.
    if recipe.decision_rule == "likeliest":
        return Decision()
    temperature = Temperature.fit(ValidationSplit(valid, valid, recipe.evaluation))
    split = ValidationSplit(valid, Decision((temperature,)).calibrate(valid), recipe.evaluation)
    return Decision((temperature, DecisionRule.fit(split, recipe.decision_rule)))


def fit_decision(
    valid: Predictions,
    options: DecisionOptions,
    previous: Decision,
    recipe: Recipe,
    table: "Table | None" = None,
    store: "Store | None" = None,
    codes: Sequence[str] = (),
) -> Decision:
    """Fit every decision on the validation split.

    Options that are None are taken from the previous decision, and the decision rule otherwise from the recipe.
    Without a store, decisions that read pixels stay as they were. `codes` are what the data writes for the classes.
    """
    config = recipe.evaluation
    chosen = options.choose_positive(previous.positive)
    positive = resolve_positive_class(chosen or recipe.data.positive, config, valid.classes, codes)
    temperature = Temperature.fit(ValidationSplit(valid, valid, config))
    split = ValidationSplit(valid, Decision((temperature,)).calibrate(valid), config, positive, table, store)
    fitted: list[ValidationDecision] = [temperature]
    for kind in DECISIONS:
        before = previous.get(kind)
        option = options.get(kind)
        if option is None and before is not None:
            option = before.option_value
        if not _is_on(option):
            option = kind.default_option(recipe)
        if kind is Temperature or (kind.option and not _is_on(option)):
            continue
        decision = before if kind.reads_pixels and store is None else kind.fit(split, option)
        if decision is not None:
            fitted.append(decision)
    tta = previous.tta if options.tta is None else options.tta
    return Decision(tuple(fitted), "" if tta == "recipe" else tta, len(valid), chosen)


def _describe_remedy(path: Path) -> str:
    return f"Delete it and {MANIFEST_FILE}, then run `parfocal evaluate {path.parent}`."


def _is_on(option: Any) -> bool:
    return bool(option) and option != "none"
