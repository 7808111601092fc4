"""The full judgement of a split: every figure, how sure it is, and the same for patients and for referable disease."""

from typing import Any

from parfocal.evaluation.calibration import reliability
from parfocal.evaluation.intervals import intervals
from parfocal.evaluation.metrics import judge, judged
from parfocal.evaluation.patients import by_group
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referable import referable
from parfocal.evaluation.weighed import Weighed
from parfocal.parts import JudgementPart


def judge_fully(predictions: Predictions, part: JudgementPart) -> dict[str, Any]:
    """Return what `judge` does, with `intervals`, `reliability`, `patients` and `referable`, as plain data.

    `patients` is there where some group has several images, and `referable` where the recipe names a grade.
    """
    if not predictions.labelled:
        return judge(predictions)
    found = {**_sure(predictions), "reliability": reliability(predictions.truth, predictions.probabilities)}
    if found["groups"] < found["count"]:
        joined, left_out = by_group(predictions, part.ordered)
        found["patients"] = {"left_out": left_out, **{way: _sure(one) for way, one in joined.items() if len(one)}}
    if part.referable:
        found["referable"] = _sure(referable(predictions, part.referable))
    return found


def _sure(predictions: Predictions) -> dict[str, Any]:
    weighed = Weighed(predictions)
    return {**judged(predictions, weighed), "intervals": intervals(weighed)}
