"""Predictions of the same images are found to be so, whatever their order; those of folds are joined."""

from dataclasses import replace

import numpy as np

from parfocal.evaluation.matching import align_predictions, describe_mismatch, join_folds
from parfocal.evaluation.predictions import Predictions
from tests.evaluation.said import make_predictions


def _said(ids: str, truth: list[int]) -> Predictions:
    scores = np.linspace(0, 1, len(ids))
    said = make_predictions(truth, np.stack([scores, 1 - scores], axis=1))
    return replace(said, ids=tuple(ids), groups=tuple(ids.upper()))


def test_rows_are_brought_into_the_order_of_others_doubled_ones_one_by_one() -> None:
    one, like = _said("abab", [0, 1, 0, 1]), _said("baab", [1, 0, 0, 1])
    assert describe_mismatch(["one", "like"], [one, like]) == ""
    brought = align_predictions(one, like)
    assert (brought.ids, brought.truth.tolist()) == (like.ids, [1, 0, 0, 1])
    np.testing.assert_array_equal(brought.probabilities, one.probabilities[[1, 0, 2, 3]])


def test_a_row_that_is_doubled_in_one_alone_is_told() -> None:
    told = describe_mismatch(["one", "other"], [_said("aab", [0, 0, 1]), _said("ab", [0, 1])])
    assert told == "one and other were judged on different images, such as a"


def test_runs_that_share_no_image_are_joined_and_others_stay_apart() -> None:
    folds = {"fold0": _said("ab", [0, 1]), "fold1": _said("cd", [1, 1])}
    ((name, said),) = join_folds("cells", folds)
    assert (name, said.ids, said.groups, said.truth.tolist()) == ("cells", tuple("abcd"), tuple("ABCD"), [0, 1, 1, 1])
    assert len(said.probabilities) == 4
    seeds = {"seed0": folds["fold0"], "seed1": folds["fold0"]}
    assert [name for name, _ in join_folds("cells", seeds)] == ["seed0", "seed1"]
    # Two seeds of each fold are two whole cross-validations.
    several = {f"{seed} {fold}": one for fold, one in folds.items() for seed in ("a", "b")}
    assert [(name, one.ids) for name, one in join_folds("cells", several)] == [
        ("a fold0, a fold1", tuple("abcd")),
        ("b fold0, b fold1", tuple("abcd")),
    ]
