"""`init=auto` is resolved once for all runs of a command, and the same way when they are resumed."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.models.weight_files import PRETRAINED_HASHES
from parfocal.recipe import Recipe, expand_recipes, load_recipe
from parfocal.training.auto_start import resolve_auto_init
from parfocal.training.autoconfig import Plan
from tests.web import run_web_server

QUICK: dict[str, Any] = {"model": "resnet20", "size": 32, "crop_size": 32, "precision": "float32"}
RECIPE = """
network: {init: auto}
by_start: {scratch: {epochs: 2, learning_rate: 0.01}, pretrained: {epochs: 1, learning_rate: 0.003}}
"""


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path / "mine.yaml"


def _resolve(recipes: dict[str, Recipe], stored: dict[str, Recipe]) -> tuple[dict[str, Recipe], list[str]]:
    """Return the recipes with `init=auto` resolved, and the lines that were shown."""
    lines: list[str] = []
    plans = {name: Plan(recipe) for name, recipe in recipes.items()}
    resolved = resolve_auto_init(plans, stored, lines.append)
    return {name: plan.recipe for name, plan in resolved.items()}, lines


def test_without_weights_all_runs_start_from_scratch_and_one_line_says_how_to_place_them(recipe_file: Path) -> None:
    recipes, lines = _resolve(expand_recipes(recipe_file, model=["resnet18", "resnet34"], seed=[0, 1]), {})
    assert {recipe.network.init for recipe in recipes.values()} == {"scratch"}
    assert {recipe.training.epochs for recipe in recipes.values()} == {2}
    assert len(lines) == 1
    assert "Training starts from scratch: Cannot download resnet18-f37072fd.pth from https://download" in lines[0]
    assert f"place it at {recipe_file.parent / 'weights' / 'resnet18-f37072fd.pth'}" in lines[0]


@pytest.mark.usefixtures("online")
def test_weights_are_fetched_once_before_the_first_run(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRETRAINED_HASHES["imagenet"], "resnet18", hashlib.sha256(b"weights").hexdigest()[:8])
    name = f"resnet18-{PRETRAINED_HASHES['imagenet']['resnet18']}.pth"
    with run_web_server() as site:
        monkeypatch.setenv("PARFOCAL_MIRROR", site.url)
        site.files[f"/{name}"] = b"weights"
        recipes, lines = _resolve(expand_recipes(recipe_file, seed=[0, 1], init=["auto", "scratch"]), {})
        assert len(site.requests) == 1
    assert lines == [f"Fetching ImageNet weights, 47 MB from {site.url}/{name}."]
    starts = [(recipe.network.init, recipe.training.epochs) for recipe in recipes.values()]
    assert starts == [("imagenet", 1), ("scratch", 2)] * 2


def test_runs_that_exist_keep_their_initial_weights_and_new_runs_take_those(recipe_file: Path) -> None:
    stored = load_recipe(recipe_file, init="imagenet", seed=1)
    recipes = expand_recipes(recipe_file, seed=[0, 1])
    resolved, lines = _resolve(recipes, {"resnet18-seed1": stored})
    assert resolved["resnet18-seed1"] == stored
    assert resolved["resnet18-seed0"] == load_recipe(recipe_file, init="imagenet", seed=0)
    other = load_recipe(recipe_file, init="scratch", seed=0)
    resolved, _ = _resolve(recipes, {"resnet18-seed0": other, "resnet18-seed1": stored})
    assert resolved == {"resnet18-seed0": other, "resnet18-seed1": stored}
    assert not lines


def test_a_run_stores_what_auto_was_resolved_to_and_is_resumed_with_it(
    cells: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    arguments: dict[str, Any] = {"out": tmp_path / "runs", "show_line": lines.append, **QUICK}
    (run,) = parfocal.train(cells, recipe_file, **arguments)
    assert "Training starts from scratch: there are no ImageNet weights for resnet20." in lines
    assert (run.recipe.network.init, run.recipe.training.epochs) == ("scratch", 2)
    assert run.recipe == load_recipe(recipe_file, init="scratch", **QUICK)
    (run.folder / "metrics.json").unlink()
    monkeypatch.setattr("parfocal.training.auto_start.find_start", pytest.fail)
    (resumed,) = parfocal.train(cells, recipe_file, resume=True, **arguments)
    assert resumed.is_finished
    assert resumed.recipe == run.recipe


def test_frozen_stages_need_weights(cells: Path, recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="freeze=head would freeze random weights"):
        parfocal.train(cells, recipe_file, out=tmp_path / "runs", freeze="head", **QUICK)


def test_an_explicit_imagenet_fails_without_weights(cells: Path, recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"PARFOCAL_OFFLINE is set.*place it at"):
        parfocal.train(cells, recipe_file, out=tmp_path / "runs", init="imagenet")
