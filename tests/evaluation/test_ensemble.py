"""An ensemble is the average of its runs, and is evaluated like a run."""

import json
from pathlib import Path

import numpy as np
import pytest

from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.decision import Decision, DecisionOptions
from parfocal.evaluation.ensemble import average_predictions, build_ensemble, open_members
from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.out_of_distribution import OodMonitor
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe import load_recipe
from parfocal.run import Run
from tests.evaluation.make_predictions import make_predictions

TRUTH = np.random.default_rng(0).integers(0, 2, 200)


def _write_run(folder: Path, seed: int) -> Run:
    """Write a run with weak predictions, whose errors depend on the seed."""
    run = Run(folder)
    load_recipe(None, seed=seed).save(folder / "recipe.yaml")
    data = {"classes": ["class 0", "class 1"], "codes": ["0", "1"], "groups_are": "images"}
    run.write_environment({"data": data})
    for number, split in enumerate(("valid", "test")):
        noise = np.random.default_rng([seed, number]).normal(size=200)
        score = 1 / (1 + np.exp(-(1.5 * TRUTH - 0.75 + noise)))
        make_predictions(TRUTH, np.stack([1 - score, score], axis=1)).save(run.predictions_path(split))
    return run


def test_an_ensemble_is_better_than_its_members_and_saved_like_a_run(tmp_path: Path) -> None:
    runs = [_write_run(tmp_path / f"run{seed}", seed) for seed in range(4)]
    comparison = build_ensemble(runs, tmp_path / "all", DecisionOptions("sensitivity=0.9", positive="1"))
    members = [Predictions.load(run.predictions_path("test")) for run in runs]
    average = Predictions.load(tmp_path / "all" / "predictions" / "test.csv")
    expected = np.mean([predictions.probabilities for predictions in members], axis=0)
    np.testing.assert_allclose(average.probabilities, expected, atol=1e-8)
    assert compute_metrics(average)["auc"] > max(compute_metrics(predictions)["auc"] for predictions in members)
    assert [result.name for result in comparison.results] == ["run0", "run1", "run2", "run3", "ensemble"]
    assert {difference.second for difference in comparison.differences} == {"ensemble"}
    decision = Decision.load(tmp_path / "all" / "decision.json")
    assert decision.operating_point is not None
    metrics = json.loads((tmp_path / "all" / "metrics.json").read_text())
    assert metrics["test"]["operating_point"]["goal"] == "sensitivity=0.9"
    assert metrics["test"]["operating_point"]["positive"] == "class 1"
    with pytest.raises(UsageError, match="needs to know which class is positive"):
        build_ensemble(runs, tmp_path / "other", DecisionOptions("sensitivity=0.9"))
    assert [run.folder for run in open_members(tmp_path / "all")] == [run.folder for run in runs]


def test_an_ensemble_takes_the_monitor_of_its_first_run(tmp_path: Path) -> None:
    runs = [_write_run(tmp_path / f"run{seed}", seed) for seed in range(2)]
    monitor = OodMonitor((1.0,) * 7, (2.0,) * 7, 4.0, 60)
    for first, second, expected in ((monitor, None, monitor), (None, monitor, None)):
        for run, fitted in zip(runs, (first, second), strict=True):
            Decision((fitted,) if fitted else ()).save(run.decision_path)
        build_ensemble(runs, tmp_path / "all")
        assert Decision.load(tmp_path / "all" / "decision.json").ood == expected


def test_rows_are_matched_by_their_ids(tmp_path: Path) -> None:
    first = make_predictions([0, 1], np.array([[0.9, 0.1], [0.4, 0.6]]))
    probabilities = np.array([[0.2, 0.8], [0.7, 0.3]])
    reverse = Predictions(first.ids[::-1], first.groups[::-1], first.truth[::-1], probabilities, first.classes)
    average = average_predictions({"a": first, "b": reverse})
    np.testing.assert_allclose(average.probabilities, [[0.8, 0.2], [0.3, 0.7]])
    other = Predictions(("0", "x"), first.groups, first.truth, first.probabilities, first.classes)
    with pytest.raises(ParfocalError, match=r"a and b .* different images, such as 1, x\. An ensemble needs the same"):
        average_predictions({"a": first, "b": other})


def test_an_invalid_ensemble_is_rejected_and_nothing_is_written(tmp_path: Path) -> None:
    runs = [_write_run(tmp_path / "run", 0), _write_run(tmp_path / "other", 1)]
    with pytest.raises(UsageError, match="needs at least two runs, and there is 1"):
        build_ensemble(runs[:1], tmp_path / "all")
    with pytest.raises(UsageError, match=r"refer=1\.5 is not a coverage"):
        build_ensemble(runs, tmp_path / "all", DecisionOptions(refer=1.5))
    runs[1].predictions_path("valid").unlink()
    with pytest.raises(ParfocalError, match=r"other/predictions/valid\.csv is missing.*`parfocal evaluate"):
        build_ensemble(runs, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    runs = [_write_run(tmp_path / f"run{seed}", seed) for seed in range(2)]
    before = runs[1].predictions_path("valid").read_bytes()
    for out in (runs[1], _write_run(tmp_path / "third", 2)):
        with pytest.raises(UsageError, match=rf"{out.name} is a run, which the ensemble would overwrite"):
            build_ensemble(runs, out.folder)
    assert runs[1].predictions_path("valid").read_bytes() == before
    build_ensemble(runs, tmp_path / "all")
    build_ensemble(runs, tmp_path / "all")
