"""What the images of a patient say together."""

import numpy as np
import pytest

from parfocal.evaluation.evaluate import evaluate_split
from parfocal.evaluation.patients import aggregate_by_group
from parfocal.schema import EvaluationConfig
from tests.evaluation.make_predictions import make_predictions

GROUPS = ["b", "a", "b", "b", "a"]
SAID = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.4, 0.6], [0.3, 0.7]])


def test_probabilities_are_averaged_and_votes_counted() -> None:
    joined, left_out = aggregate_by_group(make_predictions([1, 0, 1, 1, 0], SAID, GROUPS), ordered=False)
    assert left_out == 0
    mean, vote = joined["mean"], joined["vote"]
    assert mean.ids == vote.ids == ("a", "b")
    assert mean.truth.tolist() == [0, 1]
    np.testing.assert_allclose(mean.probabilities, [[0.45, 0.55], [1.7 / 3, 1.3 / 3]])
    np.testing.assert_allclose(vote.probabilities, [[0.5, 0.5], [1 / 3, 2 / 3]])


def test_of_equal_votes_the_mean_probability_decides() -> None:
    said = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.5, 0.1, 0.4]])
    joined, _ = aggregate_by_group(make_predictions([1, 1, 0, 2, 2], said, ["a", "a", "b", "c", "c"]), ordered=False)
    assert joined["vote"].predicted.tolist() == [1, 0, 2]
    np.testing.assert_allclose(joined["vote"].probabilities, [[0.5, 0.5, 0], [1, 0, 0], [0.5, 0, 0.5]], atol=1e-8)


def test_a_group_of_two_truths_is_left_out_unless_its_classes_are_in_order() -> None:
    predictions = make_predictions([1, 0, 1, 1, 1], SAID, GROUPS)
    joined, left_out = aggregate_by_group(predictions, ordered=False)
    assert (joined["mean"].ids, left_out) == (("b",), 1)
    joined, left_out = aggregate_by_group(predictions, ordered=True)
    assert (joined["worst"].truth.tolist(), left_out) == ([1, 1], 0)
    # Neither image of a is of the higher grade with 0.6 · 0.3, none of b's with 0.9 · 0.4 · 0.4.
    np.testing.assert_allclose(joined["worst"].probabilities[:, 0], [0.18, 0.144])


def test_the_worst_of_an_eye_and_itself_alone_is_itself() -> None:
    dice = np.random.default_rng(0)
    alone = make_predictions(dice.integers(0, 5, 30), dice.dirichlet(np.ones(5), 30))
    worst = aggregate_by_group(alone, ordered=True)[0]["worst"]
    places = [worst.ids.index(one) for one in alone.ids]
    np.testing.assert_allclose(worst.probabilities[places], alone.probabilities, atol=1e-12)


def test_patients_are_judged_where_they_have_several_images() -> None:
    found = evaluate_split(make_predictions([1, 0, 1, 1, 1], SAID, GROUPS), EvaluationConfig())
    assert found["patients"]["left_out"] == 1
    assert found["patients"]["mean"]["count"] == 1
    assert found["patients"]["vote"]["accuracy"] == 1
    assert found["patients"]["mean"]["accuracy"] == 0
    assert "patients" not in evaluate_split(make_predictions([1, 0, 1, 1, 1], SAID), EvaluationConfig())
    assert evaluate_split(make_predictions([0, 1], np.eye(2), ["a", "a"]), EvaluationConfig())["patients"] == {
        "left_out": 1
    }


def test_intervals_are_drawn_over_patients() -> None:
    dice = np.random.default_rng(1)
    truth = np.repeat(dice.integers(0, 2, 40), 10)
    # All ten images of a patient are right, or none is: forty witnesses, not four hundred.
    right = np.repeat(dice.random(40) < 0.8, 10)
    said = np.eye(2)[np.where(right, truth, 1 - truth)]
    patients = [str(number // 10) for number in range(400)]
    together = evaluate_split(make_predictions(truth, said, patients), EvaluationConfig())["intervals"]["accuracy"]
    apart = evaluate_split(make_predictions(truth, said), EvaluationConfig())["intervals"]["accuracy"]
    assert np.diff(together) == pytest.approx(np.sqrt(10) * np.diff(apart), rel=0.2)
