"""What chance alone would do is counted exactly where it can be, and asked for more where there are many pairs."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.significance import adjust_p_values, mcnemar_test, permutation_test
from tests.evaluation.make_predictions import make_predictions, random_predictions

NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "quadratic_kappa", "brier", "loss")


@settings(max_examples=15)
@given(one=random_predictions((3, 3), least=8), seed=st.integers(0, 100))
def test_answers_are_exchanged_by_groups_in_every_way(one: Predictions, seed: int) -> None:
    dice = np.random.default_rng(seed)
    groups = dice.integers(0, 4, len(one))
    one = replace(one, groups=tuple(map(str, groups)))
    other = replace(one, probabilities=dice.dirichlet(np.ones(3), len(one)))
    apart: dict[str, list[float]] = {name: [] for name in NAMES}
    for way in product([False, True], repeat=4):
        turned = np.array(way)[groups][:, None]
        sides = (
            np.where(turned, other.probabilities, one.probabilities),
            np.where(turned, one.probabilities, other.probabilities),
        )
        first, second = (compute_metrics(replace(one, probabilities=side)) for side in sides)
        for name in NAMES:
            apart[name].append(abs(first[name] - second[name]))
    found = permutation_test([one], [other], 100)
    for name, several in apart.items():
        assert found[name] == pytest.approx(np.mean(np.array(several) >= several[0] - 1e-9)), name


@settings(max_examples=15)
@given(one=random_predictions((2, 3), least=8), seed=st.integers(0, 100))
def test_of_the_area_under_the_curve_ranks_are_exchanged(one: Predictions, seed: int) -> None:
    dice = np.random.default_rng(seed)
    several, groups = len(one.classes), dice.integers(0, 4, len(one))
    one = replace(one, groups=tuple(map(str, groups)))
    # Far apart in how certain they are, which ranks do not tell.
    other = replace(one, probabilities=dice.dirichlet(np.full(several, 30.0), len(one)))
    asked = [label for label in range(several) if several > 2 or label == 1]
    asked = [label for label in asked if 0 < (one.truth == label).sum() < len(one)]
    ranks = [stats.rankdata(side.probabilities, axis=0) for side in (one, other)]
    apart: list[float] = []
    for way in product([False, True], repeat=len(np.unique(groups))):
        turned = np.array(way)[np.unique(groups, return_inverse=True)[1]]
        first, second = np.where(turned[:, None], ranks[1], ranks[0]), np.where(turned[:, None], *ranks)
        areas = np.array(
            [[roc_auc_score(one.truth == label, side[:, label]) for label in asked] for side in (first, second)]
        )
        apart.append(abs(float(areas[0].mean() - areas[1].mean())) if asked else np.nan)
    found = permutation_test([one], [other], 100)
    assert found["auc"] == pytest.approx(np.mean(np.array(apart) >= apart[0] - 1e-9))


def test_seeds_weigh_alike_and_of_many_groups_ranks_are_not_exchanged() -> None:
    dice = np.random.default_rng(2)
    truth = dice.integers(0, 2, 30)
    good = make_predictions(truth, np.eye(2)[truth] * 0.5 + dice.dirichlet([1, 1], 30) * 0.5)
    other = make_predictions(truth, dice.dirichlet([1, 1], 30))
    alone = permutation_test([good], [other], 3000)["auc"]
    assert permutation_test([good, good, good], [other, other], 3000)["auc"] == alone < 0.01
    many = make_predictions(np.tile(truth, 20), np.tile(good.probabilities, (20, 1)))
    assert "auc" not in permutation_test([many], [many], 10)


def test_many_groups_are_exchanged_by_lot_as_the_binomial_says() -> None:
    truth, right = np.zeros(400, np.int64), np.eye(2)[np.zeros(400, np.int64)]
    one, other = right.copy(), right.copy()
    one[:16], other[16:46] = [0, 1], [0, 1]
    first, second = make_predictions(truth, one), make_predictions(truth, other)
    found = permutation_test([first], [second], 4000)
    assert found["accuracy"] == pytest.approx(mcnemar_test(first, second), abs=0.01)
    assert found == permutation_test([first], [second], 4000)
    assert permutation_test([first], [first], 100)["accuracy"] == 1


def test_of_several_runs_the_mean_counts() -> None:
    truth = np.zeros(6, np.int64)
    right, wrong = np.eye(2)[truth], np.eye(2)[1 - truth]
    seeds = [make_predictions(truth, right), make_predictions(truth, np.concatenate([right[:3], wrong[3:]]))]
    # Three images are right twice and three once, of two: all six speak for the one side.
    assert permutation_test(seeds, [make_predictions(truth, wrong)], 100)["accuracy"] == 2 / 2**6


@given(seed=st.integers(0, 1000), count=st.integers(1, 80))
def test_mcnemars_test_is_the_binomial_of_what_one_alone_got_right(seed: int, count: int) -> None:
    dice = np.random.default_rng(seed)
    truth = dice.integers(0, 2, count)
    one, other = (make_predictions(truth, dice.dirichlet([1, 1], count)) for _ in range(2))
    right = np.stack([one.predicted == truth, other.predicted == truth])
    table = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
    smaller, both = min(table), sum(table)
    expected = min(1.0, 2 * stats.binom.cdf(smaller, both, 0.5)) if both else 1.0
    assert mcnemar_test(one, other) == pytest.approx(expected)
    assert mcnemar_test(one, other) == pytest.approx(mcnemar_test(other, one))


def test_many_pairs_are_asked_for_more() -> None:
    assert adjust_p_values([0.04, None, 0.01, 0.03]) == [0.06, None, 0.03, 0.06]
    assert adjust_p_values([0.9, 0.9]) == [1, 1]
