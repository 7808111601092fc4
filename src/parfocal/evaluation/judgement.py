"""The full judgement of a split: every figure, how sure it is, and what the decisions made on validation do to it."""

from dataclasses import replace
from typing import Any

import numpy as np

from parfocal.evaluation.calibration import reliability
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.intervals import intervals, share
from parfocal.evaluation.metrics import judge, judged
from parfocal.evaluation.operating import Operating, asked
from parfocal.evaluation.patients import by_group
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referable import referable
from parfocal.evaluation.referral import Referral
from parfocal.evaluation.together import together
from parfocal.evaluation.weighed import Weighed
from parfocal.parts import JudgementPart

_OF_PROBABILITIES = ("brier", "loss", "ece", "auc", "average_precision")


def judge_fully(predictions: Predictions, part: JudgementPart, decision: Decision | None = None) -> dict[str, Any]:
    """Return what `judge` does, as plain data, with `intervals`, `reliability` and what the rest calls for.

    `patients` is there where some group has several images, and `referable` where the recipe names a grade. With a
    decision, `calibration` holds the figures of its temperature, and `operating`, `together` and `referral` what they
    reach, where they were asked for. All figures but these are of the predictions as they are.
    """
    if not predictions.labelled:
        return judge(predictions)
    found = {**_sure(predictions), "reliability": reliability(predictions.truth, predictions.probabilities)}
    if found["groups"] < found["count"]:
        joined, left_out = by_group(predictions, part.ordered)
        found["patients"] = {"left_out": left_out, **{way: _sure(one) for way, one in joined.items() if len(one)}}
    if part.referable:
        found["referable"] = _sure(referable(predictions, part.referable))
    return found if decision is None else found | _as_decided(predictions, part, decision)


def _sure(predictions: Predictions) -> dict[str, Any]:
    weighed = Weighed(predictions)
    return {**judged(predictions, weighed), "intervals": intervals(weighed)}


def _as_decided(predictions: Predictions, part: JudgementPart, decision: Decision) -> dict[str, Any]:
    calibrated = decision.calibrated(predictions)
    figures = judge(calibrated)
    found: dict[str, Any] = {
        "calibration": {
            "temperature": decision.temperature,
            **{name: figures[name] for name in ("loss", "brier", "ece")},
            "reliability": reliability(calibrated.truth, calibrated.probabilities),
        }
    }
    if decision.operating is not None:
        found["operating"] = _operated(calibrated, part, decision.operating)
    if decision.together is not None:
        found["together"] = {"weight": decision.together, **_sure(together(predictions, decision.together))}
    if decision.referral is not None:
        found["referral"] = _referred(calibrated, decision.labels(calibrated.probabilities, part), decision.referral)
    return found


def _operated(calibrated: Predictions, part: JudgementPart, operating: Operating) -> dict[str, Any]:
    """Judge the answers of an operating point: its sensitivity is the recall of the second class."""
    positive = operating.positive(calibrated.probabilities, part)
    question = calibrated if positive is None else asked(calibrated, part)
    said = operating.labels(calibrated.probabilities, part) if positive is None else positive.astype(np.int64)
    found = _sure(replace(question, probabilities=np.eye(len(question.classes))[said]))
    for figures in (found, found["intervals"]):
        for name in _OF_PROBABILITIES:
            figures.pop(name, None)
        for one in figures["per_class"].values():
            for name in [name for name in one if name in _OF_PROBABILITIES or "_at_" in name]:
                del one[name]
    return {"wish": operating.wish, "thresholds": list(operating.thresholds), **found}


def _referred(calibrated: Predictions, labels: np.ndarray, referral: Referral) -> dict[str, Any]:
    """Measure how often the sets hold the truth, how many images are referred, and how good the other answers are."""
    held = referral.sets(calibrated.probabilities)[np.arange(len(calibrated)), calibrated.truth]
    sure = ~referral.referred(calibrated.probabilities)
    groups = np.array(calibrated.groups)
    right = labels == calibrated.truth
    return {
        "stated": referral.coverage,
        "coverage": share(calibrated.groups, held),
        "referred": share(calibrated.groups, ~sure),
        "accuracy_of_the_rest": share(groups[sure].tolist(), right[sure]) if sure.any() else None,
    }
