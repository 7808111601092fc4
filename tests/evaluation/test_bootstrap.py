"""Intervals come from draws of whole groups, the same for the same seed."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from parfocal.evaluation.bootstrap import BootstrapResult, bootstrap, compute_intervals
from parfocal.evaluation.metrics import ResampledMetrics, compute_metrics
from parfocal.evaluation.predictions import Predictions
from tests.evaluation.make_predictions import make_predictions, random_predictions


def _some(count: int = 300, groups: int = 60, seed: int = 0) -> Predictions:
    dice = np.random.default_rng(seed)
    truth = dice.integers(0, 3, count)
    probabilities = dice.dirichlet(np.ones(3), count) + 0.4 * np.eye(3)[truth]
    names = [f"patient {number}" for number in dice.integers(0, groups, count)]
    return make_predictions(truth, probabilities / probabilities.sum(axis=1, keepdims=True), names)


@settings(max_examples=40)
@given(predictions=random_predictions(), seed=st.integers(0, 100))
def test_a_draw_is_a_judgement_of_the_groups_drawn(predictions: Predictions, seed: int) -> None:
    weighed = ResampledMetrics(predictions)
    times = np.random.default_rng(seed).integers(0, 3, (1, len(weighed.group_names))).astype(np.uint16)
    if not times.sum():
        times += 1
    rows = np.concatenate([
        np.flatnonzero(np.array(predictions.groups) == name)
        for name, several in zip(weighed.group_names, times[0], strict=True)
        for _ in range(several)
    ])  # fmt: skip
    again = compute_metrics(make_predictions(predictions.truth[rows], predictions.probabilities[rows]))
    for key, values in weighed.compute_weighted(times).items():
        expected = again[key[0]] if len(key) == 1 else again["per_class"][key[0]][key[1]]
        assert values[0] == pytest.approx(np.nan if expected is None else expected, nan_ok=True, abs=1e-12), key


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    weighed = ResampledMetrics(_some())
    assert compute_intervals(weighed, 200) == compute_intervals(weighed, 200)
    assert compute_intervals(weighed, 200)["accuracy"] != compute_intervals(weighed, 200, seed=1)["accuracy"]
    # The first draws do not depend on how many follow.
    few, many = (bootstrap([weighed], draws)[0]["auc",].samples for draws in (50, 120))
    np.testing.assert_array_equal(few, many[:50])


def test_the_order_of_the_rows_does_not_matter() -> None:
    one = _some()
    turned = Predictions(one.ids[::-1], one.groups[::-1], one.truth[::-1], one.probabilities[::-1], one.classes)
    first, second = (compute_intervals(ResampledMetrics(which), 100) for which in (one, turned))
    np.testing.assert_allclose(first["kappa"], second["kappa"])
    np.testing.assert_allclose(first["auc"], second["auc"])


def test_an_interval_holds_its_figure_and_widens_with_its_level() -> None:
    predictions = _some()
    found = compute_metrics(predictions)
    narrow, wide = (
        compute_intervals(ResampledMetrics(predictions), level=0.5),
        compute_intervals(ResampledMetrics(predictions), level=0.99),
    )
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "quadratic_kappa", "auc", "average_precision", "brier"):
        assert wide[name][0] < narrow[name][0] < found[name] < narrow[name][1] < wide[name][1], name


def test_what_most_draws_cannot_say_has_no_interval() -> None:
    said = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]] * 20)
    found = compute_intervals(ResampledMetrics(make_predictions([0] * 60, said)), 100)
    assert found["auc"] is None
    assert found["per_class"]["class 1"]["recall"] is None
    assert found["accuracy"] is not None
    assert "NaN" not in json.dumps(found)


def test_no_mistake_at_all_is_no_certainty() -> None:
    truth = [0, 1, 1] * 20
    assert compute_intervals(ResampledMetrics(make_predictions(truth, np.eye(2)[truth])), 100)["accuracy"] is None


@pytest.mark.parametrize("groups", [1, 39, 40])
def test_of_few_patients_nothing_is_concluded(groups: int) -> None:
    one = _some(groups=groups)
    patients = [str(number % groups) for number in range(len(one))]
    found = compute_intervals(ResampledMetrics(make_predictions(one.truth, one.probabilities, patients)), 100)
    assert (found["accuracy"] is not None) == (groups >= 40)


def test_the_interval_is_the_bca_of_scipy_where_groups_are_many() -> None:
    dice = np.random.default_rng(2)
    values = dice.exponential(size=400)
    drawn = np.array([dice.choice(values, 400).mean() for _ in range(20_000)])
    without = np.array([np.delete(values, row).mean() for row in range(400)])
    reference = stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=dice).confidence_interval
    width = reference.high - reference.low
    np.testing.assert_allclose(
        BootstrapResult(values.mean(), without, drawn, 400).compute_interval() or (),
        tuple(reference),
        atol=0.03 * width,
    )


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), value=st.floats(-3, 3), groups=st.integers(40, 80))
def test_what_chance_would_give_agrees_with_the_interval(seed: int, value: float, groups: int) -> None:
    dice = np.random.default_rng(seed)
    spread = BootstrapResult(value, value + dice.normal(size=groups), value + dice.normal(size=2000), groups)
    level = 1 - (spread.compute_p_value() or 0)
    for wider, holds in ((0.02, True), (-0.02, False)):
        low, high = spread.compute_interval(min(0.999, max(0.001, level + wider))) or (0, 0)
        if 0.03 < level < 0.97:
            assert (low <= 0 <= high) is holds


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("none", range(0, 120, 7))
def test_chance_is_below_five_percent_only_where_the_interval_leaves_0_even_if_draws_are_equal(
    none: int, sign: int
) -> None:
    # So many of a thousand draws hold none of the few images that differ.
    dice = np.random.default_rng(0)
    drawn = sign * np.concatenate([np.zeros(none), 1 + dice.poisson(2, 1000 - none)])
    spread = BootstrapResult(sign * 3.0, 3 + dice.normal(size=50), drawn, 50)
    low, high = spread.compute_interval() or (0, 0)
    assert ((spread.compute_p_value() or 0) < 0.05) == (low > 0 or high < 0)


def test_they_cover_the_truth_as_often_as_they_say() -> None:
    # Patients differ in how easy they are, so that images of one are right or wrong together; the mean is 0.8.
    dice, covered = np.random.default_rng(5), []
    for _ in range(150):
        right = (dice.random((80, 5)) < dice.beta(4, 1, 80)[:, None]).ravel()
        patients = [str(number // 5) for number in range(400)]
        predictions = make_predictions(np.zeros(400, np.int64), np.eye(2)[np.where(right, 0, 1)], patients)
        low, high = bootstrap([ResampledMetrics(predictions)], 200)[0]["accuracy",].compute_interval() or (0, 0)
        covered.append(low <= 0.8 <= high)
    # Of 150 intervals: 95 % and two and a half standard errors. Over images they would be half as wide.
    assert 0.905 <= np.mean(covered) <= 0.995
