"""Runs are compared on the same images, draw by draw, and a difference that chance could make is called none."""

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
from parfocal.run import Run
from tests.evaluation.make_predictions import make_predictions


def _said(skill: float, seed: int = 0, count: int = 400) -> Predictions:
    """Say of the same images, two to a patient, the truth with some skill."""
    truth = np.random.default_rng(0).integers(0, 3, count)
    dice = np.random.default_rng([1, seed])
    probabilities = dice.dirichlet(np.ones(3), count) + skill * np.eye(3)[truth]
    patients = [str(number // 2) for number in range(count)]
    return make_predictions(truth, probabilities / probabilities.sum(axis=1, keepdims=True), patients)


def _run(folder: Path, predictions: Predictions, split: str = "test", **changes: object) -> Run:
    run = Run(folder)
    load_recipe(None, **changes).save(folder / "recipe.yaml")
    predictions.save(run.predictions_path(split))
    return run


def test_a_large_difference_is_larger_than_chance_and_a_small_one_is_not(tmp_path: Path) -> None:
    runs = [
        _run(tmp_path / "poor", _said(0.2, 1), model="resnet18"),
        _run(tmp_path / "good", _said(1.0, 2), model="resnet50"),
        _run(tmp_path / "alike", _said(1.0, 3), model="resnet34"),
    ]
    found = compare_runs(runs)
    assert (found.split, found.not_compared_reason) == ("test", "")
    assert [one.name for one in found.results] == ["poor", "good", "alike"]
    by_pair = {(one.first, one.second, one.metric): one for one in found.differences}
    assert len(by_pair) == 3 * len(COMPARED_METRICS)
    accuracy = {run.name: compute_metrics(Predictions.load(run.predictions_path("test")))["accuracy"] for run in runs}
    clear, level = by_pair["poor", "good", "accuracy"], by_pair["good", "alike", "accuracy"]
    assert clear.value == pytest.approx(accuracy["poor"] - accuracy["good"])
    assert clear.significant
    assert clear.mcnemar_p_value is not None
    assert clear.mcnemar_p_value < 0.001
    assert clear.interval is not None
    assert clear.interval[1] < 0
    assert not level.significant
    assert level.p_value is not None
    assert level.adjusted_p_value is not None
    assert 0.05 < level.p_value <= level.adjusted_p_value
    assert by_pair["poor", "good", "auc"].mcnemar_p_value is None


def test_pairing_finds_what_separate_intervals_hide(tmp_path: Path) -> None:
    better = _said(0.6)
    # The same answers, with one wrong in every twenty images that were right.
    right = np.flatnonzero(better.predicted == better.truth)[::20]
    probabilities = better.probabilities.copy()
    probabilities[right] = np.eye(3)[(better.truth[right] + 1) % 3]
    worse = Predictions(better.ids, better.groups, better.truth, probabilities, better.classes)
    found = compare_runs([
        _run(tmp_path / "a", better, model="resnet18"),
        _run(tmp_path / "b", worse, model="resnet34"),
    ])  # fmt: skip
    first, second = (one.metrics["accuracy"].interval for one in found.results)
    assert first is not None
    assert second is not None
    assert first[0] < second[1]
    assert next(one for one in found.differences if one.metric == "accuracy").significant


def test_a_run_and_itself_do_not_differ(tmp_path: Path) -> None:
    runs = [_run(tmp_path / name, _said(0.5), model=name) for name in ("resnet18", "resnet34")]
    for one in compare_runs(runs).differences:
        assert (one.value, one.p_value, one.significant) == (0, 1, False)


@pytest.mark.parametrize("patients", [4, 5, 6])
def test_a_few_patients_alone_make_no_difference_that_chance_would_not(patients: int, tmp_path: Path) -> None:
    # Of each patient one image is right in one run alone; chance puts them all on one side in 2 of 2 ** patients cases.
    better = _said(1.0)
    right = (better.predicted == better.truth).reshape(-1, 2)[:, 0]
    taken = np.flatnonzero(right)[:patients] * 2
    probabilities = better.probabilities.copy()
    probabilities[taken] = np.eye(3)[(better.truth[taken] + 1) % 3]
    worse = replace(better, probabilities=probabilities)
    found = compare_runs([
        _run(tmp_path / "a", better, model="resnet18"),
        _run(tmp_path / "b", worse, model="resnet34"),
    ])  # fmt: skip
    by_figure = {one.metric: one for one in found.differences}
    for name in ("accuracy", "balanced_accuracy", "brier"):
        assert by_figure[name].p_value == 2 / 2**patients
        assert by_figure[name].significant == (patients == 6)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    one, other = _said(0.2, 1), _said(0.4, 2)
    turned = Predictions(other.ids[::-1], other.groups[::-1], other.truth[::-1], other.probabilities[::-1], one.classes)
    first = _run(tmp_path / "one", one, model="resnet18")
    straight = compare_runs([first, _run(tmp_path / "other", other, model="resnet34")])
    _run(tmp_path / "other", turned, model="resnet34")
    assert compare_runs([first, Run(tmp_path / "other")]) == straight


def test_seeds_of_one_recipe_are_gathered_as_mean_and_deviation(tmp_path: Path) -> None:
    runs = [_run(tmp_path / f"resnet18-seed{seed}", _said(0.5, seed), seed=seed) for seed in range(3)]
    other = _run(tmp_path / "resnet34-seed0", _said(0.5, 9), model="resnet34")
    found = compare_runs([*runs, other])
    assert [one.name for one in found.results] == ["resnet18", "resnet34-seed0"]
    assert found.results[0].runs == ("resnet18-seed0", "resnet18-seed1", "resnet18-seed2")
    values = [compute_metrics(Predictions.load(run.predictions_path("test")))["accuracy"] for run in runs]
    figure = found.results[0].metrics["accuracy"]
    assert figure.value == pytest.approx(np.mean(values))
    assert figure.std == pytest.approx(np.std(values, ddof=1))
    assert found.results[1].metrics["accuracy"].std is None
    assert {one.mcnemar_p_value for one in found.differences} == {None}


def test_seeds_that_look_at_images_in_different_ways_stand_apart(tmp_path: Path) -> None:
    runs = [_run(tmp_path / f"resnet18-seed{seed}", _said(0.5, seed), seed=seed) for seed in range(2)]
    Decision(tta="d4").save(runs[0].decision_path)
    assert [one.name for one in compare_runs(runs).results] == ["resnet18-seed0", "resnet18-seed1"]


def test_valid_is_taken_where_the_truth_of_test_is_unknown(tmp_path: Path) -> None:
    said = _said(0.5)
    run = _run(tmp_path / "one", said, split="valid")
    unknown = Predictions(said.ids, said.groups, np.full(len(said), -1), said.probabilities, said.classes)
    unknown.save(run.predictions_path("test"))
    assert compare_runs([run]).split == "valid"
    with pytest.raises(ParfocalError, match="has images without truth"):
        compare_runs([run], split="test")


def _folds(folder: Path, network: str, said: Predictions) -> list[Run]:
    """Keep what each of two folds says of its images, a quarter of them and the rest."""
    quarter, runs = len(said) // 4, []
    for fold, rows in enumerate((slice(quarter), slice(quarter, None))):
        runs.append(_run(folder / f"{network}-fold{fold}", _of(said, rows), "valid", model=network, folds=2, fold=fold))
    return runs


def _of(said: Predictions, rows: slice) -> Predictions:
    ids, groups, truth, probabilities = said.ids[rows], said.groups[rows], said.truth[rows], said.probabilities[rows]
    return Predictions(ids, groups, truth, probabilities, said.classes)


def test_folds_are_joined_and_networks_over_the_same_folds_compared(tmp_path: Path) -> None:
    poor, good = _said(0.2, 1), _said(1.0, 2)
    found = compare_runs([*_folds(tmp_path, "resnet18", poor), *_folds(tmp_path, "resnet50", good)])
    whole = compare_runs([
        _run(tmp_path / "poor", poor, "valid", model="resnet18"),
        _run(tmp_path / "good", good, "valid", model="resnet50"),
    ])  # fmt: skip
    assert [one.name for one in found.results] == ["resnet18", "resnet50"]
    for one, together in zip(found.results, whole.results, strict=True):
        assert len(one.runs) == 2
        assert (one.n_images, one.n_groups) == (together.n_images, together.n_groups) == (400, 200)
        assert one.majority_accuracy == pytest.approx(np.bincount(poor.truth).max() / 400)
        figure, expected = one.metrics["accuracy"], together.metrics["accuracy"]
        assert (figure.value, figure.interval) == (pytest.approx(expected.value), pytest.approx(expected.interval))
        assert figure.std is not None
    alone = [
        compute_metrics(Predictions.load(run.predictions_path("valid")))["kappa"]
        for run in _folds(tmp_path, "resnet18", poor)
    ]
    assert found.results[0].metrics["kappa"].std == pytest.approx(np.std(alone, ddof=1))
    assert found.not_compared_reason == ""
    for between, expected in zip(found.differences, whole.differences, strict=True):
        assert between.value == pytest.approx(expected.value)
        assert between.p_value == pytest.approx(expected.p_value)


def test_networks_over_other_images_are_told_by_their_own_names(tmp_path: Path) -> None:
    one, less = _said(0.5, 1), _of(_said(0.5, 2), slice(300))
    found = compare_runs([*_folds(tmp_path, "resnet18", one), *_folds(tmp_path, "resnet50", less)])
    odd = "resnet18 and resnet50 were judged on different images, such as 300, 301 and 98 more"
    assert found.not_compared_reason == odd
    assert [one.n_images for one in found.results] == [400, 300]


def test_seeds_of_one_recipe_on_other_images_count_every_image_once(tmp_path: Path) -> None:
    said = _said(0.5)
    parts = [_of(said, rows) for rows in (slice(0, 300), slice(100, 400))]
    runs = [_run(tmp_path / f"resnet18-seed{seed}", part, "valid", seed=seed) for seed, part in enumerate(parts)]
    found = compare_runs(runs)
    assert (found.results[0].n_images, found.results[0].n_groups) == (400, 200)
    assert "resnet18-seed0 and resnet18-seed1 were judged on different images" in found.not_compared_reason


def test_doubled_rows_stay_two(tmp_path: Path) -> None:
    one = _said(0.5, 1)
    ids = tuple(str(number // 2) for number in range(len(one)))
    truth = np.repeat(one.truth[::2], 2)
    runs = [
        _run(tmp_path / model, replace(_said(0.5, seed), ids=ids, truth=truth), model=model)
        for seed, model in enumerate(("resnet18", "resnet34"))
    ]
    found = compare_runs(runs)
    for run, result in zip(runs, found.results, strict=True):
        judged = compute_metrics(Predictions.load(run.predictions_path("test")))
        assert result.metrics["accuracy"].value == pytest.approx(judged["accuracy"])
        assert result.n_images == 400
    assert found.not_compared_reason == ""


def test_other_truths_and_other_classes_are_told(tmp_path: Path) -> None:
    one = _said(0.5)
    changed = Predictions(one.ids, one.groups, (one.truth + 1) % 3, one.probabilities, one.classes)
    runs = [_run(tmp_path / "a", one, model="resnet18"), _run(tmp_path / "b", changed, model="resnet34")]
    assert "a and b were judged by different labels, of 0, 1" in compare_runs(runs).not_compared_reason
    other = Predictions(one.ids, one.groups, one.truth, one.probabilities, ("x", "y", "z"))
    runs[1] = _run(tmp_path / "b", other, model="resnet34")
    with pytest.raises(ParfocalError, match="a tells class 0, class 1, class 2 apart, b x, y, z"):
        compare_runs(runs)
