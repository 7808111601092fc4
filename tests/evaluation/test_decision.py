"""What validation decided is kept in one file, and comes back as it went."""

from pathlib import Path

import numpy as np
import pytest

from parfocal.errors import ParfocalError
from parfocal.evaluation.decision import Decision, DecisionOptions, fit_decision
from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.out_of_distribution import OodMonitor
from parfocal.evaluation.predictions import Predictions
from parfocal.schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions

PLAIN = EvaluationConfig()
ORDINARY = OodMonitor((1.0,) * 7, (2.0,) * 7, 4.0, 60)
EVERYTHING = DecisionOptions(operating_point="sensitivity=0.9", refer=0.8, tta="d4", fuse_eyes=True)


def _overconfident(seed: int = 0, count: int = 400) -> Predictions:
    dice = np.random.default_rng(seed)
    truth = dice.integers(0, 2, count)
    logits = np.clip(dice.normal(2.0 * truth - 1, 1.5), -3, 3) * 4
    said = 1 / (1 + np.exp(-logits))
    return make_predictions(truth, np.stack([1 - said, said], axis=1), [str(number // 2) for number in range(count)])


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    decision = fit_decision(_overconfident(), EVERYTHING, Decision(), PLAIN, ORDINARY)
    decision.save(tmp_path / "decision.json")
    assert Decision.load(tmp_path / "decision.json") == decision
    assert Decision.load(tmp_path / "none.json") == Decision()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ParfocalError, match=r"is not what Parfocal wrote\. Make it anew with `parfocal evaluate"):
        Decision.load(tmp_path / "other.json")


def test_what_was_wished_stays_until_it_is_taken_back() -> None:
    first = fit_decision(_overconfident(), EVERYTHING, Decision(), PLAIN, ORDINARY)
    assert fit_decision(_overconfident(), DecisionOptions(), first, PLAIN, ORDINARY) == first
    back = fit_decision(_overconfident(), DecisionOptions("none", 0, "none", fuse_eyes=False), first, PLAIN, ORDINARY)
    assert (back.operating_point, back.referral, back.tta, back.fellow_eye_weight) == (None, None, "", None)
    assert back.temperature == first.temperature


def test_calibration_is_shown_before_and_after() -> None:
    decision = fit_decision(_overconfident(), DecisionOptions(), Decision(), PLAIN, None)
    assert decision.temperature > 2
    found = evaluate_split(_overconfident(1), PLAIN, decision)
    assert found["calibration"]["ece"] < found["ece"] / 2
    assert found["calibration"]["loss"] < found["loss"]
    assert found["calibration"]["reliability"] != found["reliability"]
    assert compute_metrics(decision.calibrate(_overconfident(1)))["accuracy"] == found["accuracy"]


def test_an_operating_point_is_judged_where_it_was_not_chosen() -> None:
    decision = fit_decision(
        _overconfident(), DecisionOptions(operating_point="sensitivity=0.95"), Decision(), PLAIN, None
    )
    valid = evaluate_split(_overconfident(), PLAIN, decision)["operating"]
    test = evaluate_split(_overconfident(1), PLAIN, decision)["operating"]
    assert valid["wish"] == test["wish"] == "sensitivity=0.95"
    assert valid["per_class"]["class 1"]["recall"] >= 0.95
    low, high = test["intervals"]["per_class"]["class 1"]["recall"]
    assert low < test["per_class"]["class 1"]["recall"] < high
    assert "auc" not in test
    assert decision.operating_point is not None
    calibrated = decision.calibrate(_overconfident(1)).probabilities
    assert test["confusion"][1][1] == ((calibrated[:, 1] >= decision.operating_point.thresholds[0])
                                       & (_overconfident(1).truth == 1)).sum()  # fmt: skip


def test_the_answer_of_two_classes_follows_the_threshold() -> None:
    decision = fit_decision(
        _overconfident(), DecisionOptions(operating_point="specificity=0.99"), Decision(), PLAIN, None
    )
    calibrated = decision.calibrate(_overconfident()).probabilities
    assert decision.predict_labels(calibrated, PLAIN).sum() < calibrated.argmax(axis=1).sum()
    assert Decision().predict_labels(calibrated, PLAIN).tolist() == calibrated.argmax(axis=1).tolist()
