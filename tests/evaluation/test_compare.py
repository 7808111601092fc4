"""Runs are compared on the same images, sample by sample; differences that chance could make are not significant."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parfocal.errors import ParfocalError
from parfocal.evaluation.compare import COMPARED_METRICS, compare_runs
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe import load_recipe
from parfocal.report.formatting import describe_significance
from parfocal.report.tables import format_comparison
from parfocal.run import Run
from tests.evaluation.make_predictions import make_predictions


def _draw_predictions(skill: float, seed: int = 0) -> Predictions:
    """Draw predictions of the same 400 images, two per patient; more skill means more probability of the truth."""
    truth = np.random.default_rng(0).integers(0, 3, 400)
    rng = np.random.default_rng([1, seed])
    probabilities = rng.dirichlet(np.ones(3), 400) + skill * np.eye(3)[truth]
    patients = [str(number // 2) for number in range(400)]
    return make_predictions(truth, probabilities / probabilities.sum(axis=1, keepdims=True), patients)


def _make_wrong(predictions: Predictions, rows: np.ndarray) -> Predictions:
    """Return the predictions with those of some rows made wrong."""
    probabilities = predictions.probabilities.copy()
    probabilities[rows] = np.eye(3)[(predictions.truth[rows] + 1) % 3]
    return replace(predictions, probabilities=probabilities)


def _select(predictions: Predictions, rows: slice) -> Predictions:
    return replace(
        predictions,
        ids=predictions.ids[rows],
        groups=predictions.groups[rows],
        truth=predictions.truth[rows],
        probabilities=predictions.probabilities[rows],
    )


def _save_run(folder: Path, predictions: Predictions, split: str = "test", **changes: object) -> Run:
    run = Run(folder)
    load_recipe(None, **changes).save(folder / "recipe.yaml")
    run.write_environment({"data": {"classes": list(predictions.classes), "groups_are": "patients"}})
    predictions.save(run.predictions_path(split))
    return run


def _compute_metrics(run: Run, split: str = "test") -> dict[str, float]:
    return compute_metrics(Predictions.load(run.predictions_path(split)))


def test_a_large_difference_is_significant_and_a_small_one_is_not(tmp_path: Path) -> None:
    runs = [
        _save_run(tmp_path / "poor", _draw_predictions(0.2, 1), model="resnet18"),
        _save_run(tmp_path / "good", _draw_predictions(1.0, 2), model="resnet50"),
        _save_run(tmp_path / "equal", _draw_predictions(1.0, 3), model="resnet34"),
    ]
    comparison = compare_runs(runs)
    assert (comparison.split, comparison.not_compared_reason) == ("test", "")
    assert [result.name for result in comparison.results] == ["poor", "good", "equal"]
    differences = {(item.first, item.second, item.metric): item for item in comparison.differences}
    assert len(differences) == 3 * len(COMPARED_METRICS)
    large = differences["poor", "good", "accuracy"]
    accuracy = {run.name: _compute_metrics(run)["accuracy"] for run in runs}
    assert large.value == pytest.approx(accuracy["poor"] - accuracy["good"])
    assert (large.significance, large.not_tested_reason) == ("significant", "")
    assert large.mcnemar_p_value is not None
    assert large.mcnemar_p_value < 0.001
    assert large.interval is not None
    assert large.interval[1] < 0
    small = differences["good", "equal", "accuracy"]
    assert (small.significance, small.not_tested_reason) == ("not significant", "")
    assert small.p_value is not None
    assert small.adjusted_p_value is not None
    assert 0.05 < small.p_value <= small.adjusted_p_value
    assert differences["poor", "good", "auc"].mcnemar_p_value is None


def test_pairing_finds_a_difference_although_the_intervals_overlap(tmp_path: Path) -> None:
    better = _draw_predictions(0.6)
    # The same predictions, with every twentieth correct one made wrong.
    worse = _make_wrong(better, np.flatnonzero(better.predicted == better.truth)[::20])
    comparison = compare_runs([
        _save_run(tmp_path / "a", better, model="resnet18"),
        _save_run(tmp_path / "b", worse, model="resnet34"),
    ])  # fmt: skip
    first, second = (result.metrics["accuracy"].interval for result in comparison.results)
    assert first is not None
    assert second is not None
    assert first[0] < second[1]
    assert next(item for item in comparison.differences if item.metric == "accuracy").significance == "significant"


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    runs = [_save_run(tmp_path / name, _draw_predictions(0.5), model=name) for name in ("resnet18", "resnet34")]
    for difference in compare_runs(runs).differences:
        assert (difference.value, difference.p_value, difference.significance) == (0, 1, "not significant")


@pytest.mark.parametrize("n_patients", [4, 5, 6])
def test_a_difference_on_a_few_patients_is_only_as_significant_as_chance_allows(
    n_patients: int, tmp_path: Path
) -> None:
    # One run alone is right on one image of each of these patients. By chance, all are on one side in 2 of
    # 2 ** n_patients cases.
    better = _draw_predictions(1.0)
    first_images_correct = (better.predicted == better.truth).reshape(-1, 2)[:, 0]
    worse = _make_wrong(better, np.flatnonzero(first_images_correct)[:n_patients] * 2)
    comparison = compare_runs([
        _save_run(tmp_path / "a", better, model="resnet18"),
        _save_run(tmp_path / "b", worse, model="resnet34"),
    ])  # fmt: skip
    differences = {item.metric: item for item in comparison.differences}
    for name in ("accuracy", "balanced_accuracy", "brier"):
        assert differences[name].p_value == 2 / 2**n_patients
        assert (differences[name].significance == "significant") == (n_patients == 6)


def test_a_difference_on_too_few_patients_is_not_tested_and_says_why(tmp_path: Path) -> None:
    predictions = _select(_draw_predictions(1.0), slice(8))
    wrong = _make_wrong(predictions, np.arange(8))
    comparison = compare_runs([
        _save_run(tmp_path / "right", predictions, model="resnet18"),
        _save_run(tmp_path / "wrong", wrong, model="resnet34"),
    ])  # fmt: skip
    difference = next(item for item in comparison.differences if item.metric == "accuracy")
    assert difference.mcnemar_p_value is not None
    assert difference.mcnemar_p_value < 0.05
    assert difference.significance_text == "not tested (fewer than 40 patients)"
    assert describe_significance(difference) == "significance not tested (fewer than 40 patients)"
    for output_format in ("csv", "json", "latex"):
        assert "not tested" in format_comparison(comparison, output_format, {"right": "none", "wrong": "none"})
    assert "not tested (fewer than 40 patients)" in comparison._repr_html_()


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    first_run = _save_run(tmp_path / "first", _draw_predictions(0.2, 1), model="resnet18")
    predictions = _draw_predictions(0.4, 2)
    second_run = _save_run(tmp_path / "second", predictions, model="resnet34")
    comparison = compare_runs([first_run, second_run])
    _select(predictions, slice(None, None, -1)).save(second_run.predictions_path("test"))
    assert compare_runs([first_run, second_run]) == comparison


def test_seeds_of_one_recipe_become_a_mean_with_a_standard_deviation(tmp_path: Path) -> None:
    runs = [_save_run(tmp_path / f"resnet18-seed{seed}", _draw_predictions(0.5, seed), seed=seed) for seed in range(3)]
    single = _save_run(tmp_path / "resnet34-seed0", _draw_predictions(0.5, 9), model="resnet34")
    comparison = compare_runs([*runs, single])
    assert [result.name for result in comparison.results] == ["resnet18", "resnet34-seed0"]
    assert comparison.results[0].runs == ("resnet18-seed0", "resnet18-seed1", "resnet18-seed2")
    values = [_compute_metrics(run)["accuracy"] for run in runs]
    accuracy = comparison.results[0].metrics["accuracy"]
    assert accuracy.value == pytest.approx(np.mean(values))
    assert accuracy.std == pytest.approx(np.std(values, ddof=1))
    assert comparison.results[1].metrics["accuracy"].std is None
    assert {difference.mcnemar_p_value for difference in comparison.differences} == {None}


def test_runs_of_one_recipe_and_one_seed_are_no_seeds(tmp_path: Path) -> None:
    runs = [
        _save_run(tmp_path / name, _draw_predictions(0.5, seed), seed=seed, about=name)
        for name, seed in (("first", 0), ("other-seed", 1), ("again", 0))
    ]
    comparison = compare_runs(runs)
    assert [result.runs for result in comparison.results] == [("first", "other-seed"), ("again",)]
    assert comparison.results[1].metrics["accuracy"].std is None


def test_seeds_with_different_test_time_augmentation_stay_separate(tmp_path: Path) -> None:
    runs = [_save_run(tmp_path / f"resnet18-seed{seed}", _draw_predictions(0.5, seed), seed=seed) for seed in range(2)]
    Decision(tta="d4").save(runs[0].decision_path)
    assert [result.name for result in compare_runs(runs).results] == ["resnet18-seed0", "resnet18-seed1"]


def test_valid_is_compared_if_the_labels_of_test_are_unknown(tmp_path: Path) -> None:
    predictions = _draw_predictions(0.5)
    run = _save_run(tmp_path / "run", predictions, split="valid")
    replace(predictions, truth=np.full(len(predictions), -1)).save(run.predictions_path("test"))
    assert compare_runs([run]).split == "valid"
    with pytest.raises(ParfocalError, match=r"has images without a label\. Compare on another split"):
        compare_runs([run], split="test")


def _save_folds(folder: Path, model: str, predictions: Predictions) -> list[Run]:
    """Save the predictions as those of two folds: a quarter of the images, and the rest."""
    quarter = len(predictions) // 4
    return [
        _save_run(folder / f"{model}-fold{fold}", _select(predictions, rows), "valid", model=model, folds=2, fold=fold)
        for fold, rows in enumerate((slice(quarter), slice(quarter, None)))
    ]


def test_folds_are_joined_and_networks_compared_over_the_same_folds(tmp_path: Path) -> None:
    poor = _draw_predictions(0.2, 1)
    good = _draw_predictions(1.0, 2)
    poor_folds = _save_folds(tmp_path, "resnet18", poor)
    comparison = compare_runs([*poor_folds, *_save_folds(tmp_path, "resnet50", good)])
    expected_comparison = compare_runs([
        _save_run(tmp_path / "poor", poor, "valid", model="resnet18"),
        _save_run(tmp_path / "good", good, "valid", model="resnet50"),
    ])  # fmt: skip
    assert [result.name for result in comparison.results] == ["resnet18", "resnet50"]
    for result, expected_result in zip(comparison.results, expected_comparison.results, strict=True):
        assert len(result.runs) == 2
        assert (result.n_images, result.n_groups) == (400, 200)
        assert (expected_result.n_images, expected_result.n_groups) == (400, 200)
        assert result.majority_accuracy == pytest.approx(np.bincount(poor.truth).max() / 400)
        accuracy = result.metrics["accuracy"]
        expected = expected_result.metrics["accuracy"]
        assert (accuracy.value, accuracy.interval) == (pytest.approx(expected.value), pytest.approx(expected.interval))
        assert accuracy.std is not None
    kappas = [_compute_metrics(run, "valid")["kappa"] for run in poor_folds]
    assert comparison.results[0].metrics["kappa"].std == pytest.approx(np.std(kappas, ddof=1))
    assert comparison.not_compared_reason == ""
    for difference, expected in zip(comparison.differences, expected_comparison.differences, strict=True):
        assert difference.value == pytest.approx(expected.value)
        assert difference.p_value == pytest.approx(expected.p_value)


def test_families_on_different_images_are_named_by_their_own_names(tmp_path: Path) -> None:
    all_images = _draw_predictions(0.5, 1)
    fewer_images = _select(_draw_predictions(0.5, 2), slice(300))
    comparison = compare_runs([
        *_save_folds(tmp_path, "resnet18", all_images),
        *_save_folds(tmp_path, "resnet50", fewer_images),
    ])  # fmt: skip
    expected = "resnet18 and resnet50 were evaluated on different images, such as 300, 301 and 98 more"
    assert comparison.not_compared_reason == expected
    assert [result.n_images for result in comparison.results] == [400, 300]


def test_seeds_of_one_recipe_on_different_images_count_every_image_once(tmp_path: Path) -> None:
    predictions = _draw_predictions(0.5)
    runs = [
        _save_run(tmp_path / f"resnet18-seed{seed}", _select(predictions, rows), "valid", seed=seed)
        for seed, rows in enumerate((slice(0, 300), slice(100, 400)))
    ]
    comparison = compare_runs(runs)
    assert (comparison.results[0].n_images, comparison.results[0].n_groups) == (400, 200)
    expected = "resnet18-seed0 and resnet18-seed1 were evaluated on different images"
    assert expected in comparison.not_compared_reason


def test_seeds_on_different_images_of_few_patients_have_a_mean_without_interval(tmp_path: Path) -> None:
    predictions = _draw_predictions(0.5)
    runs = [
        _save_run(tmp_path / f"resnet18-seed{seed}", _select(predictions, rows), "valid", seed=seed)
        for seed, rows in enumerate((slice(0, 60), slice(40, 160)))
    ]
    (result,) = compare_runs(runs).results
    accuracies = [_compute_metrics(run, "valid")["accuracy"] for run in runs]
    assert result.metrics["accuracy"].value == pytest.approx(np.mean(accuracies))
    assert result.metrics["accuracy"].interval is None


def test_duplicated_rows_stay_two_rows(tmp_path: Path) -> None:
    predictions = _draw_predictions(0.5, 1)
    ids = tuple(str(number // 2) for number in range(len(predictions)))
    truth = np.repeat(predictions.truth[::2], 2)
    runs = [
        _save_run(tmp_path / model, replace(_draw_predictions(0.5, seed), ids=ids, truth=truth), model=model)
        for seed, model in enumerate(("resnet18", "resnet34"))
    ]
    comparison = compare_runs(runs)
    for run, result in zip(runs, comparison.results, strict=True):
        assert result.metrics["accuracy"].value == pytest.approx(_compute_metrics(run)["accuracy"])
        assert result.n_images == 400
    assert comparison.not_compared_reason == ""


def test_different_labels_are_reported_and_different_classes_rejected(tmp_path: Path) -> None:
    predictions = _draw_predictions(0.5)
    relabeled = replace(predictions, truth=(predictions.truth + 1) % 3)
    runs = [
        _save_run(tmp_path / "a", predictions, model="resnet18"),
        _save_run(tmp_path / "b", relabeled, model="resnet34"),
    ]
    assert "a and b were evaluated with different labels for 0, 1" in compare_runs(runs).not_compared_reason
    replace(predictions, classes=("x", "y", "z")).save(runs[1].predictions_path("test"))
    with pytest.raises(ParfocalError, match="The classes differ: a has class 0, class 1, class 2; b has x, y, z"):
        compare_runs(runs)


def test_a_notebook_shows_the_metrics_and_the_significant_differences(tmp_path: Path) -> None:
    html = compare_runs([
        _save_run(tmp_path / "poor", _draw_predictions(0.2, 1), model="resnet18"),
        _save_run(tmp_path / "good", _draw_predictions(1.0, 2), model="resnet50"),
    ])._repr_html_()  # fmt: skip
    assert "balanced accuracy" in html
    assert "poor – good" in html
    assert "<td>significant</td>" in html
