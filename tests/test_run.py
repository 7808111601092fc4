"""Opening run folders."""

from pathlib import Path

import pytest

from parfocal.errors import ParfocalError
from parfocal.recipe import load_recipe
from parfocal.run import Run, open_runs


def test_a_recipe_of_another_version_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    load_recipe("leukemia").save(tmp_path / "recipe.yaml")
    assert Run(tmp_path).recipe == load_recipe("leukemia")
    (tmp_path / "recipe.yaml").write_text("training: {of_tomorrow: 3}")
    with pytest.raises(ParfocalError, match=r"recipe\.yaml is not a recipe of this version: A recipe has no key"):
        _ = Run(tmp_path).recipe


def _make_run(folder: Path) -> Path:
    load_recipe("leukemia").save(folder / "recipe.yaml")
    return folder


def test_runs_with_the_same_name_are_distinguished_by_their_parent_folders(tmp_path: Path) -> None:
    folders = ("first/resnet18", "second/resnet18", "second/resnet50")
    runs = open_runs([_make_run(tmp_path / folder) for folder in folders])
    assert [run.name for run in runs] == ["first-resnet18", "second-resnet18", "second-resnet50"]
    assert [run.folder for run in runs] == [tmp_path / folder for folder in folders]
    assert open_runs([tmp_path / "first"])[0].name == "resnet18"
    deeper = open_runs([tmp_path / "first", _make_run(tmp_path / "deep" / "first" / "resnet18")])
    assert [run.name for run in deeper] == [f"{tmp_path.name}-first-resnet18", "deep-first-resnet18"]


def test_a_run_that_is_named_twice_is_rejected(tmp_path: Path) -> None:
    _make_run(tmp_path / "first" / "resnet18")
    with pytest.raises(ParfocalError, match=r"first/resnet18 is named twice\. Name each run once"):
        open_runs([tmp_path / "first", tmp_path / "first" / "resnet18"])


def test_a_recipe_that_was_cut_off_is_not_filled_with_defaults(tmp_path: Path) -> None:
    load_recipe(None, epochs=3).save(tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()
    for cut in (text[: text.index("views:")], text[: text.index("evaluation:")]):
        (tmp_path / "recipe.yaml").write_text(cut)
        with pytest.raises(ParfocalError, match=r"recipe\.yaml is incomplete: it has no .*evaluation"):
            _ = Run(tmp_path).recipe
