"""How what a network says becomes an answer: everything that validation decided after training, in one small file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from parfocal.errors import ParfocalError
from parfocal.evaluation.operating import Operating, checked, operating_point
from parfocal.evaluation.ordinary import Ordinary
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referral import Referral, check_coverage, fitted_referral
from parfocal.evaluation.temperature import fitted_temperature, tempered
from parfocal.evaluation.together import fitted_weight
from parfocal.files import write_json
from parfocal.parts import JudgementPart


@dataclass(frozen=True)
class Wishes:
    """What is asked of the answers; None leaves what was asked before, and `none` or 0 takes it back."""

    operating: str | None = None
    refer: float | None = None
    looks: str | None = None
    together: bool | None = None

    def check(self, part: JudgementPart, classes: int) -> None:
        """Refuse what could not be decided of so many classes, before a network is asked; looks are the recipe's."""
        if self.operating and self.operating != "none":
            checked(self.operating, part, classes)
        if self.refer:
            check_coverage(self.refer)


@dataclass(frozen=True)
class Decision:
    """The temperature, and where they were asked for the operating point, the referral, the looks and the weight of
    what the other images of a group say.

    `looks` names how often and where evaluation looks at an image, where that is not what the recipe says. `images` is
    how many images of validation decided; 0 where nothing was decided yet, as in runs of an older Parfocal.
    """

    temperature: float = 1.0
    operating: Operating | None = None
    referral: Referral | None = None
    ordinary: Ordinary | None = None
    looks: str = ""
    together: float | None = None
    images: int = 0

    def calibrated(self, predictions: Predictions) -> Predictions:
        """Return predictions with the temperature applied."""
        return replace(predictions, probabilities=tempered(predictions.probabilities, self.temperature))

    def labels(self, calibrated: np.ndarray, part: JudgementPart) -> np.ndarray:
        """Return the class that each image is answered with."""
        return calibrated.argmax(axis=1) if self.operating is None else self.operating.labels(calibrated, part)

    def answers(self, predictions: Predictions, part: JudgementPart) -> dict[str, int]:
        """Return the class that each image of predictions is answered with, by its id."""
        labels = self.labels(self.calibrated(predictions).probabilities, part)
        return dict(zip(predictions.ids, labels.tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write the decision as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a decision; where there is none, nothing was decided."""
        if not path.is_file():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                content["temperature"],
                _made(Operating, content["operating"]),
                _made(Referral, content["referral"]),
                _made(Ordinary, content["ordinary"]),
                content["looks"],
                content["together"],
                content["images"],
            )
        except (ValueError, KeyError, TypeError):
            raise ParfocalError(
                f"{path} is not what Parfocal wrote. Make it anew with `parfocal evaluate {path.parent}`."
            ) from None


def decided(
    valid: Predictions, wishes: Wishes, before: Decision, part: JudgementPart, ordinary: Ordinary | None
) -> Decision:
    """Decide from predictions of validation; what is not wished for anew is decided as it was `before`."""
    temperature = fitted_temperature(valid.truth, valid.probabilities)
    calibrated = replace(valid, probabilities=tempered(valid.probabilities, temperature))
    stated = before.operating.wish if before.operating and wishes.operating is None else wishes.operating
    covered = before.referral.coverage if before.referral and wishes.refer is None else wishes.refer
    joined = before.together is not None if wishes.together is None else wishes.together
    return Decision(
        temperature,
        operating_point(calibrated, stated, part) if stated and stated != "none" else None,
        fitted_referral(calibrated.truth, calibrated.probabilities, covered) if covered else None,
        ordinary,
        looks_of(wishes, before),
        fitted_weight(valid) if joined else None,
        len(valid),
    )


def looks_of(wishes: Wishes, before: Decision) -> str:
    """Return how images are to be looked at: as is wished, or else as before; nothing for the recipe's way."""
    if wishes.looks is None:
        return before.looks
    return "" if wishes.looks == "none" else wishes.looks


def _made(kind: Any, content: Mapping[str, Any] | None) -> Any:
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in (content or {}).items()}
    return None if content is None else kind(**lists)
