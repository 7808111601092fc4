"""Single trainings are kept, and the minutes to reach a quality are those of the shortest training that reaches it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import time_to_quality
from benchmarks.finetuning import Setting, Stopwatch, read_split
from benchmarks.quality import compute_quality
from benchmarks.time_to_quality import Trial, list_trials, run_trials
from benchmarks.time_to_quality_report import (
    compute_ratios,
    format_minutes,
    minutes_to_reach,
    save_curves,
    summarize,
    write_page,
)

_MACHINE = {"device": "a processor", "cores": 2, "instructions": "AVX2", "torch": "2.13"}


def _result(trainer: str, minutes: float, quality: float, seed: int = 0) -> dict[str, Any]:
    length = f"{minutes:.0f} epochs"
    values = dict.fromkeys(("accuracy", "kappa", "kappa_of_mean", "auc"), quality)
    return {"trainer": trainer, "start": "weights", "length": length, "seed": seed, "minutes": minutes,
            "wall_minutes": minutes, "commit": "0123456789", "machine": _MACHINE, **values}  # fmt: skip


RESULTS = [
    _result("script", 4, 0.75),
    _result("script", 8, 0.83),
    _result("script", 16, 0.82),
    _result("documents", 30, 0.72),
    _result("Parfocal", 1, 0.81),
    _result("Parfocal", 2, 0.86),
]


def test_the_shortest_training_that_reaches_a_level_counts() -> None:
    assert minutes_to_reach(RESULTS[:3], "accuracy", 0.8) == 8
    assert minutes_to_reach(RESULTS[:3], "accuracy", 0.85) == math.inf


def test_minutes_are_medians_over_seeds() -> None:
    of_seeds = [_result("script", minutes, 0.8, seed) for seed, minutes in enumerate((3, 5, 9))]
    assert summarize(of_seeds, "weights")["script"]["accuracy 0.80"] == 5
    never = [_result("script", 5, 0.6, seed=3), _result("script", 5, 0.6, seed=4), _result("script", 5, 0.6, seed=5)]
    assert summarize([*of_seeds, *never], "weights")["script"]["accuracy 0.80"] is None


def test_a_level_that_is_never_reached_counts_as_more_than_the_longest_training() -> None:
    summary = summarize(RESULTS, "weights")
    table = format_minutes(summary, {"timm": "ModuleNotFoundError: No module named 'timm'"})
    assert "> 16 " in table
    assert "No module named 'timm'" in table
    ratios = compute_ratios(summary)
    assert ratios["accuracy 0.80"] == {"best other": "8.0", "documents": "> 30.0"}
    assert ratios["kappa 0.85"] == {"best other": "> 8.0", "documents": "> 15.0"}


def test_page_and_figure_show_every_trainer(tmp_path: Path) -> None:
    save_curves(RESULTS, tmp_path, "curves")
    write_page(tmp_path / "curves.md", "smears", RESULTS, {})
    for trainer in ("script", "documents", "Parfocal"):
        assert trainer in (tmp_path / "curves.md").read_text(encoding="utf-8")
        assert trainer in (tmp_path / "curves.svg").read_text(encoding="utf-8")


def test_quality_is_that_of_the_most_probable_class_and_of_the_mean_grade() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8], [0.4, 0.2, 0.4], [0.1, 0.8, 0.1]])
    quality = compute_quality(probabilities, np.array([0, 2, 1, 1]))
    assert quality["accuracy"] == 0.75
    assert quality["kappa_of_mean"] == 1
    assert quality["kappa"] < 1


def test_trainings_of_a_seed_come_before_those_of_the_next() -> None:
    trials = list_trials(
        Path("labels.csv"),
        {"scratch": None},
        ["script", "Parfocal"],
        [(2, 96), (5, 128)],
        [3, 1],
        [0, 1],
        changes=["ema=0"],
    )
    assert [trial.length for trial in trials[:4]] == ["2 epochs, 96 px", "5 epochs, 128 px", "minutes=1", "minutes=3"]
    assert [trial.setting.seed for trial in trials] == [0] * 4 + [1] * 4
    assert len({trial.name for trial in trials}) == 8
    assert [trial.setting.changes for trial in trials[:4]] == [(), (), ("ema=0",), ("ema=0",)]


def test_the_recipe_of_the_documents_keeps_its_size() -> None:
    (trial,) = list_trials(Path("labels.csv"), {"scratch": None}, ["documents"], [(2, 96)], [], [0])
    assert trial.length == "2 epochs, 224 px"


def test_a_finished_training_is_not_repeated_and_a_missing_package_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def run_here(_measure: object, trial: Trial) -> dict[str, Any]:
        if trial.trainer == "timm":
            raise ModuleNotFoundError("No module named 'timm'")
        measured.append(trial.name)
        return _result(trial.trainer, 1, 0.9)

    monkeypatch.setattr(time_to_quality, "run_in_subprocess", run_here)
    trials = [Trial(trainer, Setting(tmp_path, None, 0, 2, 96)) for trainer in ("script", "timm")]
    first = run_trials(trials, tmp_path)
    assert run_trials(trials, tmp_path) == first
    assert measured == ["script-scratch-2-epochs-96-px-seed-0"]
    assert first[1] == {"timm": "ModuleNotFoundError: No module named 'timm'"}
    assert run_trials([Trial("script", Setting(tmp_path, None, 1, 2, 96))], tmp_path, max_minutes=-1)[0] == []


def test_labels_are_numbered_in_the_order_of_their_classes(tmp_path: Path) -> None:
    rows = [("a.png", "10", "train"), ("b.png", "2", "train"), ("c.png", "9", "test")]
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(tmp_path / "labels.csv", index=False)
    paths, labels, classes = read_split(tmp_path / "labels.csv", "train")
    assert classes == ["2", "9", "10"]
    assert labels.tolist() == [2, 0]
    assert paths == [Path("a.png"), Path("b.png")]


def test_only_the_first_stop_of_a_stopwatch_counts() -> None:
    stopwatch = Stopwatch()
    stopwatch.stop()
    minutes = stopwatch.minutes
    stopwatch.stop()
    assert stopwatch.minutes == minutes
