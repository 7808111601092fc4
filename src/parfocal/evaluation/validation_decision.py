"""The base class of a validation decision: something fitted on the validation split and applied to new predictions.

To add a decision, derive a class from `ValidationDecision` and list it in `DECISIONS` of `decision.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import ConfigDict

from parfocal.data.decode import Pixels
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe import Recipe
from parfocal.recipe_schema import EvaluationConfig

if TYPE_CHECKING:
    from parfocal.data.store import Store
    from parfocal.data.table import Table

DecideFunction = Callable[[Predictions], Predictions]
"""Returns predictions with the classes that the decision rule predicts from their probabilities."""


@dataclass(frozen=True)
class ValidationSplit:
    """The validation split that decisions are fitted on.

    `calibrated` holds the predictions after temperature scaling. `positive` is the positive class of two, if it is
    known. `table` and `store` lead to the pixels; both are None where only predictions exist, as for an ensemble.
    """

    predictions: Predictions
    calibrated: Predictions
    config: EvaluationConfig
    positive: int | None = None
    table: "Table | None" = None
    store: "Store | None" = None


@dataclass(frozen=True)
class PredictedBatch:
    """The labels, probabilities and flags of some images, a row or value per image.

    A flag is a column such as `positive` (true or false) or `unusual` (the unusual image features, "" for none).
    """

    labels: np.ndarray
    probabilities: np.ndarray
    flags: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def is_finite(self) -> np.ndarray:
        """Which images have probabilities that are all finite. The others have no answer."""
        return np.isfinite(self.probabilities.sum(axis=1))

    @property
    def is_positive(self) -> np.ndarray | None:
        """Which images are positive; None if the classes have no positive side."""
        return self.flags.get("positive")

    @property
    def is_referred(self) -> np.ndarray | None:
        """Which images are referred to a human; None without referral."""
        return self.flags.get("referred")


@dataclass(frozen=True)
class ValidationDecision(ABC):
    """A decision fitted on validation. Subclasses are frozen dataclasses whose fields are saved as JSON.

    The annotation of a field gives its bounds, which pydantic checks when a decision is read from a file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name: ClassVar[str]
    """Its key in decision.json."""
    section: ClassVar[str] = ""
    """The key of its results in metrics.json; "" if it has none."""
    option: ClassVar[str] = ""
    """The parameter of `evaluate` that chooses it; "" if it is always fitted."""
    reads_pixels: ClassVar[bool] = False
    """Whether `fit` and `inspect` need pixels."""

    @classmethod  # noqa: B027 (optional to override)
    def check(cls, option: Any, config: EvaluationConfig, n_classes: int) -> None:
        """Reject an option that can never be met, before any network runs."""

    @classmethod
    def default_option(cls, recipe: Recipe) -> Any:
        """Return the option that applies if none was chosen; None leaves the decision out."""
        return None

    @classmethod
    @abstractmethod
    def fit(cls, valid: ValidationSplit, option: Any) -> Self | None:
        """Fit the decision on validation; return None if the split does not allow it."""

    @property
    def option_value(self) -> Any:
        """The value of the option that fits this decision again."""
        return None

    @property
    def flag(self) -> str:
        """The column that the decision adds to the predictions of new images; "" for none."""
        return ""

    def apply(self, batch: PredictedBatch) -> PredictedBatch:
        """Return the batch with what the decision changes or adds."""
        return batch

    def inspect(self, pixels: Pixels) -> str:
        """Return what the pixels of a prepared image say for the flag; only called if the decision reads pixels."""
        return ""

    def evaluate(
        self, predictions: Predictions, calibrated: Predictions, labels: np.ndarray, decide: DecideFunction
    ) -> dict[str, Any] | None:
        """Return what the decision reaches on labeled predictions, for metrics.json.

        `labels` are the classes after all decisions; `decide` applies the decision rule to other predictions.
        """
        return None

    def find_misfit(self, n_classes: int) -> str:
        """Return which field, read from a file, does not fit the number of classes; "" if all do."""
        return ""

    @abstractmethod
    def describe(self) -> str:
        """Return a sentence that says what was decided."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)
