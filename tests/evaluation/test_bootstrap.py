"""Bootstrap intervals: samples of whole groups, reproducible, equal to scipy's BCa, with the promised coverage."""

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


def _draw_predictions(groups: int = 60) -> Predictions:
    """Draw predictions of 300 images with 3 classes, better than chance."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    probabilities = rng.dirichlet(np.ones(3), 300) + 0.4 * np.eye(3)[truth]
    names = [f"patient {number}" for number in rng.integers(0, groups, 300)]
    return make_predictions(truth, probabilities / probabilities.sum(axis=1, keepdims=True), names)


@settings(max_examples=40)
@given(predictions=random_predictions(), seed=st.integers(0, 100))
def test_a_sample_has_the_metrics_of_the_images_of_its_groups(predictions: Predictions, seed: int) -> None:
    resampled = ResampledMetrics(predictions)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(resampled.group_names))).astype(np.uint16)
    if not weights.sum():
        weights += 1
    rows = np.concatenate([
        np.flatnonzero(np.array(predictions.groups) == name)
        for name, count in zip(resampled.group_names, weights[0], strict=True)
        for _ in range(count)
    ])  # fmt: skip
    repeated = compute_metrics(make_predictions(predictions.truth[rows], predictions.probabilities[rows]))
    for key, values in resampled.compute_weighted(weights).items():
        expected = repeated[key[0]] if len(key) == 1 else repeated["per_class"][key[0]][key[1]]
        assert values[0] == pytest.approx(np.nan if expected is None else expected, nan_ok=True, abs=1e-12), key


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    resampled = ResampledMetrics(_draw_predictions())
    intervals = compute_intervals(resampled, 200)
    assert compute_intervals(resampled, 200) == intervals
    assert compute_intervals(resampled, 200, seed=1)["accuracy"] != intervals["accuracy"]
    # The first samples do not depend on the number of samples.
    few, many = (bootstrap([resampled], n_samples)[0]["auc",].samples for n_samples in (50, 120))
    np.testing.assert_array_equal(few, many[:50])


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = _draw_predictions()
    reverse = Predictions(rows.ids[::-1], rows.groups[::-1], rows.truth[::-1], rows.probabilities[::-1], rows.classes)
    first, second = (compute_intervals(ResampledMetrics(predictions), 100) for predictions in (rows, reverse))
    np.testing.assert_allclose(first["kappa"], second["kappa"])
    np.testing.assert_allclose(first["auc"], second["auc"])


def test_an_interval_contains_its_value_and_widens_with_its_level() -> None:
    predictions = _draw_predictions()
    value = compute_metrics(predictions)
    narrow = compute_intervals(ResampledMetrics(predictions), level=0.5)
    wide = compute_intervals(ResampledMetrics(predictions), level=0.99)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "quadratic_kappa", "auc", "average_precision", "brier"):
        assert wide[name][0] < narrow[name][0] < value[name] < narrow[name][1] < wide[name][1], name


def test_a_metric_that_is_undefined_in_most_samples_has_no_interval() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]] * 20)
    intervals = compute_intervals(ResampledMetrics(make_predictions([0] * 60, probabilities)), 100)
    assert intervals["auc"] is None
    assert intervals["per_class"]["class 1"]["recall"] is None
    assert intervals["accuracy"] is not None
    assert "NaN" not in json.dumps(intervals)


def test_without_any_error_accuracy_has_no_interval() -> None:
    truth = [0, 1, 1] * 20
    predictions = make_predictions(truth, np.eye(2)[truth])
    assert compute_intervals(ResampledMetrics(predictions), 100)["accuracy"] is None


@pytest.mark.parametrize("groups", [1, 39, 40])
def test_with_few_patients_there_are_no_intervals(groups: int) -> None:
    predictions = _draw_predictions(groups)
    patients = [str(number % groups) for number in range(len(predictions))]
    predictions = make_predictions(predictions.truth, predictions.probabilities, patients)
    intervals = compute_intervals(ResampledMetrics(predictions), 100)
    assert (intervals["accuracy"] is not None) == (groups >= 40)


def test_with_many_groups_the_interval_equals_scipys_bca() -> None:
    rng = np.random.default_rng(2)
    values = rng.exponential(size=400)
    samples = np.array([rng.choice(values, 400).mean() for _ in range(20_000)])
    jackknife = np.array([np.delete(values, row).mean() for row in range(400)])
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=rng).confidence_interval
    interval = BootstrapResult(values.mean(), jackknife, samples, 400).compute_interval()
    np.testing.assert_allclose(interval or (), tuple(expected), atol=0.03 * (expected.high - expected.low))


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), value=st.floats(-3, 3), groups=st.integers(40, 80))
def test_the_p_value_agrees_with_the_interval(seed: int, value: float, groups: int) -> None:
    rng = np.random.default_rng(seed)
    result = BootstrapResult(value, value + rng.normal(size=groups), value + rng.normal(size=2000), groups)
    level = 1 - (result.compute_p_value() or 0)
    for change, contains_0 in ((0.02, True), (-0.02, False)):
        low, high = result.compute_interval(min(0.999, max(0.001, level + change))) or (0, 0)
        if 0.03 < level < 0.97:
            assert (low <= 0 <= high) is contains_0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n_zeros", range(0, 120, 7))
def test_the_p_value_is_below_5_percent_only_if_the_interval_excludes_0_even_with_equal_samples(
    n_zeros: int, sign: int
) -> None:
    # Of 1,000 samples, this many contain none of the few images on which the sides differ.
    rng = np.random.default_rng(0)
    samples = sign * np.concatenate([np.zeros(n_zeros), 1 + rng.poisson(2, 1000 - n_zeros)])
    result = BootstrapResult(sign * 3.0, 3 + rng.normal(size=50), samples, 50)
    low, high = result.compute_interval() or (0, 0)
    assert ((result.compute_p_value() or 0) < 0.05) == (low > 0 or high < 0)


def test_intervals_contain_the_true_value_as_often_as_their_level_says() -> None:
    # Patients differ in how easy they are, so that the images of one are correct together; the true accuracy is 0.8.
    rng = np.random.default_rng(5)
    contains_truth: list[bool] = []
    for _ in range(150):
        correct = (rng.random((80, 5)) < rng.beta(4, 1, 80)[:, None]).ravel()
        patients = [str(number // 5) for number in range(400)]
        predictions = make_predictions(np.zeros(400, np.int64), np.eye(2)[np.where(correct, 0, 1)], patients)
        result = bootstrap([ResampledMetrics(predictions)], 200)[0]["accuracy",]
        low, high = result.compute_interval() or (0, 0)
        contains_truth.append(low <= 0.8 <= high)
    # 95 % of 150 intervals, plus or minus two and a half standard errors. Over images they would be half as wide.
    assert 0.905 <= np.mean(contains_truth) <= 0.995


def test_a_few_patients_that_dominate_a_metric_widen_its_interval() -> None:
    samples = np.random.default_rng(0).normal(0.8, 0.05, 2000)
    alike = np.where(np.arange(60) % 2, 0.79, 0.81)
    # Two patients of opposite influence, so that the influences are not skewed in either case.
    dominated = np.concatenate([[0.7, 0.9], np.full(58, 0.8)])
    widths = [
        np.ptp(BootstrapResult(0.8, jackknife, samples, 60).compute_interval() or ())
        for jackknife in (alike, dominated)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_the_calibration_error_has_no_interval() -> None:
    predictions = _draw_predictions()
    assert compute_metrics(predictions)["ece"] > 0
    assert "ece" not in compute_intervals(ResampledMetrics(predictions), 100)
