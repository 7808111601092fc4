"""A run folder, opened again."""

from pathlib import Path

import pytest

from parfocal.errors import ParfocalError
from parfocal.recipe import load_recipe
from parfocal.run import Run, open_runs


def test_a_recipe_of_another_version_is_one_message_that_names_the_file(tmp_path: Path) -> None:
    load_recipe("leukemia").save(tmp_path / "recipe.yaml")
    assert Run(tmp_path).recipe == load_recipe("leukemia")
    (tmp_path / "recipe.yaml").write_text("training: {of_tomorrow: 3}")
    with pytest.raises(ParfocalError, match=r"recipe\.yaml is not a recipe of this version: A recipe has no key"):
        _ = Run(tmp_path).recipe


def _made(folder: Path) -> Path:
    load_recipe("leukemia").save(folder / "recipe.yaml")
    return folder


def test_runs_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    places = ("first/resnet18", "second/resnet18", "second/resnet50")
    opened = open_runs([_made(tmp_path / place) for place in places])
    assert [run.name for run in opened] == ["first-resnet18", "second-resnet18", "second-resnet50"]
    assert [run.folder for run in opened] == [tmp_path / place for place in places]
    assert open_runs([tmp_path / "first"])[0].name == "resnet18"
    deeper = open_runs([tmp_path / "first", _made(tmp_path / "deep" / "first" / "resnet18")])
    assert [run.name for run in deeper] == [f"{tmp_path.name}-first-resnet18", "deep-first-resnet18"]


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    _made(tmp_path / "first" / "resnet18")
    with pytest.raises(ParfocalError, match=r"first/resnet18 is named twice\. Name each run once"):
        open_runs([tmp_path / "first", tmp_path / "first" / "resnet18"])
