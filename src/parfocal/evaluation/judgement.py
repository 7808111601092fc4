"""The full judgement of a split: every figure, how sure it is, and what the decisions made on validation do to it."""

from dataclasses import replace
from typing import Any

import numpy as np

from parfocal.evaluation.calibration import compute_reliability_diagram
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.intervals import compute_intervals, compute_proportion
from parfocal.evaluation.metrics import collect_metrics, compute_metrics
from parfocal.evaluation.operating import OperatingPoint, binarize
from parfocal.evaluation.patients import aggregate_by_group
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.referable import binarize_grades
from parfocal.evaluation.referral import ConformalReferral
from parfocal.evaluation.together import fuse_fellow_eyes
from parfocal.evaluation.weighed import ResampledMetrics
from parfocal.parts import EvaluationConfig

_PROBABILITY_METRICS = ("brier", "loss", "ece", "auc", "average_precision")


def evaluate_split(
    predictions: Predictions, config: EvaluationConfig, decision: Decision | None = None
) -> dict[str, Any]:
    """Return what `judge` does, as plain data, with `intervals`, `reliability` and what the rest calls for.

    `patients` is there where some group has several images, and `referable` where the recipe names a grade. With a
    decision, `calibration` holds the figures of its temperature, and `operating`, `together` and `referral` what they
    reach, where they were asked for. All figures but these are of the predictions as they are.
    """
    if not predictions.labeled:
        return compute_metrics(predictions)
    found = {
        **_compute_metrics_with_intervals(predictions),
        "reliability": compute_reliability_diagram(predictions.truth, predictions.probabilities),
    }
    if found["groups"] < found["count"]:
        joined, left_out = aggregate_by_group(predictions, config.ordered)
        found["patients"] = {
            "left_out": left_out,
            **{way: _compute_metrics_with_intervals(one) for way, one in joined.items() if len(one)},
        }
    if config.referable:
        found["referable"] = _compute_metrics_with_intervals(binarize_grades(predictions, config.referable))
    return found if decision is None else found | _evaluate_decision(predictions, config, decision)


def _compute_metrics_with_intervals(predictions: Predictions) -> dict[str, Any]:
    weighed = ResampledMetrics(predictions)
    return {**collect_metrics(predictions, weighed), "intervals": compute_intervals(weighed)}


def _evaluate_decision(predictions: Predictions, config: EvaluationConfig, decision: Decision) -> dict[str, Any]:
    calibrated = decision.calibrate(predictions)
    figures = compute_metrics(calibrated)
    found: dict[str, Any] = {
        "calibration": {
            "temperature": decision.temperature,
            **{name: figures[name] for name in ("loss", "brier", "ece")},
            "reliability": compute_reliability_diagram(calibrated.truth, calibrated.probabilities),
        }
    }
    if decision.operating_point is not None:
        found["operating"] = _evaluate_operating_point(calibrated, config, decision.operating_point)
    if decision.fellow_eye_weight is not None:
        found["together"] = {
            "weight": decision.fellow_eye_weight,
            **_compute_metrics_with_intervals(fuse_fellow_eyes(predictions, decision.fellow_eye_weight)),
        }
    if decision.referral is not None:
        found["referral"] = _evaluate_referral(
            calibrated, decision.predict_labels(calibrated.probabilities, config), decision.referral
        )
    return found


def _evaluate_operating_point(
    calibrated: Predictions, config: EvaluationConfig, point: OperatingPoint
) -> dict[str, Any]:
    """Judge the answers of an operating point: its sensitivity is the recall of the second class."""
    positive = point.is_positive(calibrated.probabilities, config)
    question = calibrated if positive is None else binarize(calibrated, config)
    said = point.predict_labels(calibrated.probabilities, config) if positive is None else positive.astype(np.int64)
    found = _compute_metrics_with_intervals(replace(question, probabilities=np.eye(len(question.classes))[said]))
    for figures in (found, found["intervals"]):
        for name in _PROBABILITY_METRICS:
            figures.pop(name, None)
        for one in figures["per_class"].values():
            for name in [name for name in one if name in _PROBABILITY_METRICS or "_at_" in name]:
                del one[name]
    return {"wish": point.goal, "thresholds": list(point.thresholds), **found}


def _evaluate_referral(calibrated: Predictions, labels: np.ndarray, referral: ConformalReferral) -> dict[str, Any]:
    """Measure how often the sets hold the truth, how many images are referred, and how good the other answers are."""
    held = referral.prediction_sets(calibrated.probabilities)[np.arange(len(calibrated)), calibrated.truth]
    sure = ~referral.is_referred(calibrated.probabilities)
    groups = np.array(calibrated.groups)
    right = labels == calibrated.truth
    return {
        "stated": referral.coverage,
        "coverage": compute_proportion(calibrated.groups, held),
        "referred": compute_proportion(calibrated.groups, ~sure),
        "accuracy_of_the_rest": compute_proportion(groups[sure].tolist(), right[sure]) if sure.any() else None,
    }
