"""The results pages: which runs they need, in which order, that finished runs are kept, and what the pages show."""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import parfocal
from benchmarks import results_pages
from benchmarks.results_experiments import DATA_SETS, EXPERIMENTS, PAGES, DataSet, Experiment, GapPage, Page
from benchmarks.results_pages import Workspace, list_experiments, list_runs, train_missing, write_pages
from benchmarks.split_gap import compute_gaps
from parfocal.evaluation.predictions import Predictions
from parfocal.recipe import load_recipe, parse_changes
from tests.cells import SMALL_RECIPE

_SMALL = tuple(f"{key}={value}" for key, value in {**SMALL_RECIPE, "epochs": 1}.items())


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_every_experiment_has_a_data_set_initial_weights_and_a_valid_recipe(experiment: Experiment) -> None:
    assert experiment.data in DATA_SETS
    assert experiment.init in ("scratch", "weights", *EXPERIMENTS)
    changes = {"init": "imagenet", **parse_changes([*experiment.changes, *DATA_SETS[experiment.data].changes])}
    load_recipe(None if experiment.recipe == "auto" else experiment.recipe, **changes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_names_experiments_on_the_same_data(page: Page | GapPage) -> None:
    names = list_experiments(page)
    groups = page.pairs.values() if isinstance(page, GapPage) else [names]
    for group in groups:
        assert len({EXPERIMENTS[name].data for name in group}) == 1
    if isinstance(page, Page):
        assert {page.baseline, *page.plotted} <= set(names)


def test_initial_weights_are_trained_before_the_runs_that_begin_from_them() -> None:
    runs = [(experiment.name, seed) for experiment, seed in list_runs(PAGES)]
    assert len(set(runs)) == len(runs)
    assert runs.index(("cifar10", 0)) < runs.index(("starts-cifar10", 0))
    assert runs.index(("aptos-all-224", 2)) < runs.index(("starts-aptos", 2))
    assert ("cifar10", 1) not in runs


@pytest.fixture
def workspace(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with two small experiments, the second beginning from the first, and two pages about them."""
    experiments = {
        "first": Experiment("first", "from scratch", "cells", "leukemia-adam", _SMALL, seeds=(0,)),
        "second": Experiment("second", "from the first", "cells", "leukemia-adam", _SMALL, init="first", seeds=(0,)),
    }
    monkeypatch.setattr(results_pages, "EXPERIMENTS", experiments)
    monkeypatch.setattr(results_pages, "DATA_SETS", {"cells": DataSet(cells.name)})
    monkeypatch.setattr(results_pages, "DOCS", tmp_path / "docs")
    return Workspace(cells.parent, tmp_path / "weights.safetensors", tmp_path / "runs")


_PAGES = (
    Page("starts", "Two starts", "From scratch, or not.", ("first", "second"), baseline="first", plotted=("second",)),
    GapPage("patients", "A split", "By patient or not.", {"cells": ("first", "second")}),
)


def _train_here(command: Sequence[str]) -> bool:
    """Do what `run_command` does in this process, which starts faster."""
    _, _, data, _, recipe, *changes = command
    values = parse_changes([change for change in changes if "=" in change])
    parfocal.train(data, recipe, out=changes[changes.index("--out") + 1], show_line=lambda _: None, **values)
    return True


@pytest.mark.usefixtures("blank_figures")
def test_a_page_shows_metrics_differences_figures_and_how_runs_were_made(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_command = Mock(side_effect=_train_here)
    monkeypatch.setattr(results_pages, "run_command", run_command)
    monkeypatch.setattr(results_pages, "describe_commit", lambda: "0123456789")
    for _ in range(2):
        train_missing(workspace, _PAGES, budget_minutes=60)
        assert run_command.call_count == 2
    write_pages(workspace, _PAGES)
    docs = results_pages.DOCS
    page = (docs / "starts.md").read_text(encoding="utf-8")
    assert "| from the first | 0 |" in page
    assert "accuracy minus from scratch" in page
    assert "Commit 0123456789" in page
    assert "parfocal train DATA/cells --recipe leukemia-adam init=RUNS/first/seed0/resnet20" in page
    assert str(workspace.out) not in page
    assert (docs / "images" / "starts-curves.svg").is_file()
    assert "| cells | quadratic kappa |" in (docs / "patients.md").read_text(encoding="utf-8")


def test_no_run_begins_after_the_budget_or_without_its_initial_weights(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command = Mock(return_value=False)
    monkeypatch.setattr(results_pages, "run_command", run_command)
    train_missing(workspace, _PAGES, budget_minutes=-1)
    run_command.assert_not_called()
    assert capsys.readouterr().out.count("not started, because -1 minutes have passed") == 2
    train_missing(workspace, _PAGES, budget_minutes=60)
    run_command.assert_called_once()
    assert "second, seed 0: not started, because first is not finished" in capsys.readouterr().out


def _predict(ids: list[str], truth: list[int], predicted: list[int]) -> Predictions:
    return Predictions(tuple(ids), tuple(ids), np.array(truth), np.eye(2)[predicted], ("0", "1"))


def test_the_gap_between_splits_has_an_interval_over_patients() -> None:
    ids = [str(number) for number in range(80)]
    truth = [number % 2 for number in range(80)]
    patients = {name: f"patient {int(name) // 2}" for name in ids}
    wrong = [1 - label if number % 4 == 0 else label for number, label in enumerate(truth)]
    honest = _predict(ids, truth, wrong)
    blind = _predict(ids[:40], truth[:40], truth[:40])
    gap = compute_gaps([honest], [blind], patients)["accuracy"]
    assert (gap.by_patient, gap.by_image) == (0.75, 1)
    assert gap.value == 0.25
    low, high = gap.interval
    assert 0.1 < low < 0.25 < high < 0.4
    same = compute_gaps([honest, honest], [honest], patients)["quadratic kappa"]
    assert (same.value, same.interval) == (0, (0, 0))
