"""An ensemble is the mean of what its runs say, judged like one of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.decision import Decision, DecisionOptions
from parfocal.evaluation.ensemble import average_predictions, build_ensemble, open_members
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe import load_recipe
from parfocal.run import Run
from tests.evaluation.make_predictions import make_predictions

TRUTH = np.random.default_rng(0).integers(0, 2, 200)


def _run(folder: Path, seed: int) -> Run:
    """Write a run that says the truth dimly, each seed with errors of its own."""
    run = Run(folder)
    load_recipe(None, seed=seed).save(folder / "recipe.yaml")
    for number, split in enumerate(("valid", "test")):
        score = 1 / (1 + np.exp(-(1.5 * TRUTH - 0.75 + np.random.default_rng([seed, number]).normal(size=200))))
        make_predictions(TRUTH, np.stack([1 - score, score], axis=1)).save(run.predictions_path(split))
    return run


def test_it_is_better_than_its_members_and_kept_like_a_run(tmp_path: Path) -> None:
    runs = [_run(tmp_path / f"run{seed}", seed) for seed in range(4)]
    found = build_ensemble(runs, tmp_path / "all", DecisionOptions(operating_point="sensitivity=0.9"))
    said = [Predictions.load(run.predictions_path("test")) for run in runs]
    own = Predictions.load(tmp_path / "all" / "predictions" / "test.csv")
    np.testing.assert_allclose(own.probabilities, np.mean([one.probabilities for one in said], axis=0), atol=1e-8)
    assert compute_metrics(own)["auc"] > max(compute_metrics(one)["auc"] for one in said)
    assert [one.name for one in found.results] == ["run0", "run1", "run2", "run3", "ensemble"]
    assert {one.second for one in found.differences} == {"ensemble"}
    decision = Decision.load(tmp_path / "all" / "decision.json")
    assert decision.operating_point is not None
    metrics = json.loads((tmp_path / "all" / "metrics.json").read_text())
    assert metrics["test"]["operating"]["wish"] == "sensitivity=0.9"
    assert [run.folder for run in open_members(tmp_path / "all")] == [run.folder for run in runs]


def test_rows_are_matched_by_their_ids(tmp_path: Path) -> None:
    one = make_predictions([0, 1], np.array([[0.9, 0.1], [0.4, 0.6]]))
    turned = Predictions(
        one.ids[::-1], one.groups[::-1], one.truth[::-1], np.array([[0.2, 0.8], [0.7, 0.3]]), one.classes
    )
    np.testing.assert_allclose(average_predictions({"a": one, "b": turned}).probabilities, [[0.8, 0.2], [0.3, 0.7]])
    other = Predictions(("0", "x"), one.groups, one.truth, one.probabilities, one.classes)
    with pytest.raises(ParfocalError, match="a and b were judged on different images, such as 1, x; an ensemble needs"):
        average_predictions({"a": one, "b": other})


def test_what_is_no_ensemble_is_told_and_nothing_written(tmp_path: Path) -> None:
    run, other = _run(tmp_path / "run", 0), _run(tmp_path / "other", 1)
    with pytest.raises(UsageError, match="needs at least two runs, and there is 1"):
        build_ensemble([run], tmp_path / "all")
    with pytest.raises(UsageError, match=r"refer=1\.5 is not a coverage"):
        build_ensemble([run, other], tmp_path / "all", DecisionOptions(refer=1.5))
    other.predictions_path("valid").unlink()
    with pytest.raises(
        ParfocalError, match=r"other/predictions/valid\.csv is missing\. Make it with `parfocal evaluate"
    ):
        build_ensemble([run, other], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    runs = [_run(tmp_path / f"run{seed}", seed) for seed in range(2)]
    before = runs[1].predictions_path("valid").read_bytes()
    for out in (runs[1], _run(tmp_path / "third", 2)):
        with pytest.raises(UsageError, match=rf"{out.name} is a run, which an ensemble would overwrite"):
            build_ensemble(runs, out.folder)
    assert runs[1].predictions_path("valid").read_bytes() == before
    build_ensemble(runs, tmp_path / "all")
    build_ensemble(runs, tmp_path / "all")
