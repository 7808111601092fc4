"""Plans from a folder: made, kept with the runs, and gone on with."""

from pathlib import Path
from typing import Any

import pytest

import parfocal
from parfocal.errors import UsageError
from parfocal.training.plan import plan_variants

QUICK: dict[str, Any] = {"model": "resnet20", "epochs": 1, "size": 32, "crop": 32, "precision": "float32"}


def test_a_plan_fits_the_folder_and_says_why(cells: Path) -> None:
    made = parfocal.plan(cells, epochs=3)
    assert made.recipe.name == "auto"
    assert made.recipe.about.startswith("Planned for 48 images of 24 patients")
    assert made.recipe.images.size == 48
    assert 24 < made.recipe.views.crop < 48
    assert made.recipe.training.epochs == 3
    page = made.to_markdown()
    assert "| `epochs` | 3 | you said so |" in page
    assert "| `stem` | small |" in page


def test_the_split_that_is_said_is_the_one_that_is_measured(cells: Path) -> None:
    made = parfocal.plan(cells, keep=False, **{"split.valid": 0.5})
    assert made.recipe.split.valid == 0.5
    images = int(made.recipe.about.split()[2])
    assert images < 48


def test_values_in_lists_make_one_plan_each(cells: Path) -> None:
    made = plan_variants(cells, model=["resnet18", "resnet20"], optimiser=["sgd", "adam"])
    assert list(made) == [f"{model}-optimiser{kind}" for model in ("resnet18", "resnet20") for kind in ("sgd", "adam")]
    assert [one.recipe.training.learning_rate for one in made.values()] == [0.05, 0.001] * 2
    assert [one.recipe.network.stem for one in made.values()] == ["small", "small", None, None]


def test_a_mistake_in_what_is_said_is_named(cells: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        parfocal.plan(cells, epohcs=3)
    with pytest.raises(UsageError, match=r"views\.crop=wide"):
        parfocal.plan(cells, crop="wide")


def test_auto_trains_by_its_plan_and_goes_on_with_it(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    assert run.recipe == parfocal.plan(cells, **QUICK).recipe
    assert "you said so" in run.plan_path.read_text(encoding="utf-8")
    (run.folder / "metrics.json").unlink()
    monkeypatch.setattr("parfocal.training.runs.plans", pytest.fail)
    (again,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True)
    assert again.is_finished
    assert again.plan_path.is_file()


def test_a_planned_run_goes_on_as_it_was_begun_where_less_memory_is_measured(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    begun, why = run.recipe, run.plan_path.read_text(encoding="utf-8")
    (run.folder / "metrics.json").unlink()
    monkeypatch.setattr("parfocal.training.facts._memory", lambda: (0.001, "cpu"))
    assert parfocal.plan(cells, **QUICK).recipe.training.batch < begun.training.batch
    with pytest.raises(UsageError, match=r"another recipe: training\.epochs was 1, now 2\. Choose"):
        parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, **{**QUICK, "epochs": 2})
    (again,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, **QUICK)
    assert again.is_finished
    assert again.recipe == begun
    assert again.plan_path.read_text(encoding="utf-8") == why


def test_a_planned_run_keeps_its_network_where_another_would_be_planned_now(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    assert parfocal.plan(cells, epochs=1).recipe.network.model != run.name
    (again,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, epochs=1)
    assert again.name == run.name


def test_a_run_that_was_not_planned_has_no_plan(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **QUICK)
    assert not run.plan_path.exists()
