"""P-values of differences: exact permutation tests, McNemar's test, and Holm's correction for many pairs."""

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

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "quadratic_kappa", "brier", "loss")


def _compute_p_value(differences: list[float]) -> float:
    """Return the share of differences that are at least as large as the first, the observed one."""
    return float(np.mean(np.array(differences) >= differences[0] - 1e-9))


@settings(max_examples=15)
@given(first=random_predictions((3, 3), min_images=8), seed=st.integers(0, 100))
def test_predictions_are_swapped_by_group_in_every_possible_way(first: Predictions, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 4, len(first))
    first = replace(first, groups=tuple(map(str, groups)))
    second = replace(first, probabilities=rng.dirichlet(np.ones(3), len(first)))
    differences: dict[str, list[float]] = {name: [] for name in METRICS}
    for swaps in product([False, True], repeat=4):
        is_swapped = np.array(swaps)[groups][:, None]
        first_metrics = compute_metrics(
            replace(first, probabilities=np.where(is_swapped, second.probabilities, first.probabilities))
        )
        second_metrics = compute_metrics(
            replace(first, probabilities=np.where(is_swapped, first.probabilities, second.probabilities))
        )
        for name in METRICS:
            differences[name].append(abs(first_metrics[name] - second_metrics[name]))
    p_values = permutation_test([first], [second], 100)
    for name in METRICS:
        assert p_values[name] == pytest.approx(_compute_p_value(differences[name])), name


@settings(max_examples=15)
@given(first=random_predictions((2, 3), min_images=8), seed=st.integers(0, 100))
def test_for_the_auc_ranks_are_swapped(first: Predictions, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_classes = len(first.classes)
    groups = rng.integers(0, 4, len(first))
    first = replace(first, groups=tuple(map(str, groups)))
    # The networks differ widely in confidence, which does not change ranks.
    second = replace(first, probabilities=rng.dirichlet(np.full(n_classes, 30.0), len(first)))
    labels = [label for label in range(n_classes) if n_classes > 2 or label == 1]
    labels = [label for label in labels if 0 < (first.truth == label).sum() < len(first)]
    first_ranks, second_ranks = (stats.rankdata(side.probabilities, axis=0) for side in (first, second))

    def compute_auc(ranks: np.ndarray) -> float:
        return float(np.mean([roc_auc_score(first.truth == label, ranks[:, label]) for label in labels]))

    names, group_index = np.unique(groups, return_inverse=True)
    differences: list[float] = []
    for swaps in product([False, True], repeat=len(names)) if labels else ():
        is_swapped = np.array(swaps)[group_index][:, None]
        first_auc = compute_auc(np.where(is_swapped, second_ranks, first_ranks))
        second_auc = compute_auc(np.where(is_swapped, first_ranks, second_ranks))
        differences.append(abs(first_auc - second_auc))
    expected = _compute_p_value(differences) if labels else 0
    assert permutation_test([first], [second], 100)["auc"] == pytest.approx(expected)


def test_seeds_have_equal_weight_and_ranks_are_not_swapped_with_many_groups() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 30)
    good = make_predictions(truth, np.eye(2)[truth] * 0.5 + rng.dirichlet([1, 1], 30) * 0.5)
    poor = make_predictions(truth, rng.dirichlet([1, 1], 30))
    single = permutation_test([good], [poor], 3000)["auc"]
    assert permutation_test([good, good, good], [poor, poor], 3000)["auc"] == single < 0.01
    many = make_predictions(np.tile(truth, 20), np.tile(good.probabilities, (20, 1)))
    assert "auc" not in permutation_test([many], [many], 10)


def test_random_swaps_of_many_groups_agree_with_the_binomial_test() -> None:
    truth = np.zeros(400, np.int64)
    correct = np.eye(2)[truth]
    first_probabilities = correct.copy()
    first_probabilities[:16] = [0, 1]
    second_probabilities = correct.copy()
    second_probabilities[16:46] = [0, 1]
    first = make_predictions(truth, first_probabilities)
    second = make_predictions(truth, second_probabilities)
    p_values = permutation_test([first], [second], 4000)
    assert p_values["accuracy"] == pytest.approx(mcnemar_test(first, second), abs=0.01)
    assert p_values == permutation_test([first], [second], 4000)
    assert permutation_test([first], [first], 100)["accuracy"] == 1


def test_runs_of_one_side_are_averaged() -> None:
    truth = np.zeros(6, np.int64)
    correct = np.eye(2)[truth]
    wrong = np.eye(2)[1 - truth]
    seeds = [make_predictions(truth, correct), make_predictions(truth, np.concatenate([correct[:3], wrong[3:]]))]
    # Both runs are right on three images, one run on the other three: all six images favor the same side.
    assert permutation_test(seeds, [make_predictions(truth, wrong)], 100)["accuracy"] == 2 / 2**6


@given(seed=st.integers(0, 1000), n_images=st.integers(1, 80))
def test_mcnemars_test_is_the_binomial_test_of_images_that_only_one_side_got_right(seed: int, n_images: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n_images)
    first, second = (make_predictions(truth, rng.dirichlet([1, 1], n_images)) for _ in range(2))
    first_correct = first.predicted == truth
    second_correct = second.predicted == truth
    only_first = (first_correct & ~second_correct).sum()
    only_second = (second_correct & ~first_correct).sum()
    n_different = only_first + only_second
    smaller = min(only_first, only_second)
    expected = min(1.0, 2 * stats.binom.cdf(smaller, n_different, 0.5)) if n_different else 1.0
    assert mcnemar_test(first, second) == pytest.approx(expected)
    assert mcnemar_test(first, second) == pytest.approx(mcnemar_test(second, first))


def test_p_values_are_adjusted_for_the_number_of_pairs() -> None:
    assert adjust_p_values([0.04, None, 0.01, 0.03]) == [0.06, None, 0.03, 0.06]
    assert adjust_p_values([0.9, 0.9]) == [1, 1]
