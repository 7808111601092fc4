"""Code that a recipe names is imported only if the call allows its module, or passes the function itself."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parfocal
from parfocal.data.custom_transform import AllowedCode, CodeNotAllowedError, load_custom_transform, separate_functions
from parfocal.errors import ParfocalError, UsageError
from tests.cells import SMALL_RECIPE
from tests.commands.run_command import expect_error
from tests.commands.run_command import parfocal as run_parfocal

NOT_A_FUNCTION = 1
ONE_EPOCH: dict[str, Any] = {**SMALL_RECIPE, "epochs": 1}


def invert(image: np.ndarray) -> np.ndarray:
    """A custom transform."""
    return 255 - image


def keep(image: np.ndarray) -> np.ndarray:
    """Another custom transform."""
    return image


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A recipe that names a module, which leaves a file when it is imported; return the folder."""
    (tmp_path / "stranger.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\ndef step(image):\n    return 255 - image\n"
    )
    (tmp_path / "recipe.yaml").write_text("views: {custom_transform: stranger:step}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("stranger", None)


def _settings(changes: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in changes.items()]


@pytest.mark.parametrize("command", ["train", "bench"])
def test_code_that_a_recipe_names_is_not_imported_and_the_error_names_file_key_value_and_flag(
    command: str, cells: Path, stranger: Path
) -> None:
    recipe = stranger / "recipe.yaml"
    out = ["--out", stranger / "runs"] if command == "train" else ["--seconds", "1"]
    result = run_parfocal(command, cells, "--recipe", recipe, *out, *_settings(ONE_EPOCH))
    message = expect_error(result, 2)
    assert message.startswith(f"Error: {recipe}: custom_transform=stranger:step ")
    assert message.endswith("add: --allow-code stranger")
    assert not (stranger / "ran").exists()
    assert not (stranger / "runs").exists()


def test_permission_for_another_module_is_no_permission(cells: Path, stranger: Path) -> None:
    arguments = ["--recipe", stranger / "recipe.yaml", "--out", stranger / "runs", "--allow-code", "numpy"]
    expect_error(run_parfocal("train", cells, *arguments, *_settings(ONE_EPOCH)), 2)
    assert not (stranger / "ran").exists()


def test_code_in_a_run_folder_runs_when_training_resumes_only_if_it_is_allowed(
    cells: Path, stranger: Path, blank_figures: None
) -> None:
    out = stranger / "runs"
    arguments = ["train", cells, "--recipe", stranger / "recipe.yaml", "--out", out, *_settings(ONE_EPOCH)]
    assert run_parfocal(*arguments, "--allow-code", "stranger").returncode == 0
    (stranger / "ran").unlink()
    del sys.modules["stranger"]
    (out / "resnet20" / "metrics.json").unlink()
    message = expect_error(run_parfocal("train", cells, "--out", out, "--resume"), 2)
    assert f"{out / 'resnet20' / 'recipe.yaml'}: custom_transform=stranger:step" in message
    assert not (stranger / "ran").exists()
    assert run_parfocal("train", cells, "--out", out, "--resume", "--allow-code", "stranger").returncode == 0
    assert (stranger / "ran").exists()


def test_other_commands_do_not_import_the_code_of_a_run(cells: Path, stranger: Path, blank_figures: None) -> None:
    (run,) = parfocal.train(cells, out=stranger / "runs", custom_transform=invert, **ONE_EPOCH)
    recipe = run.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(f"{__name__}:invert", "stranger:step"))
    (run.folder / "manifest.json").write_text('{"sha256": {}}')
    image = cells / "new_dataset" / "test" / "0.bmp"
    for arguments in (
        ("predict", run.folder, image, "-o", stranger / "out.csv"),
        ("evaluate", run.folder),
        ("explain", run.folder, image, "-o", stranger / "maps"),
        ("compare", run.folder),
        ("export", run.folder, "--to", "safetensors"),
        ("check", cells, "--recipe", recipe),
        ("prepare", cells, "--recipe", recipe),
    ):
        assert run_parfocal(*arguments).returncode == 0, arguments
    assert not (stranger / "ran").exists()


def test_a_function_is_recorded_by_name_and_needed_to_resume(cells: Path, tmp_path: Path) -> None:
    def interrupt(run: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parfocal.train(cells, out=tmp_path / "runs", after_epoch=interrupt, custom_transform=invert, **SMALL_RECIPE)
    with pytest.raises(CodeNotAllowedError, match=f"custom_transform={__name__}:invert names code"):
        parfocal.train(cells, out=tmp_path / "runs", resume=True)
    with pytest.raises(ParfocalError, match=f"views.custom_transform was {__name__}:invert, now {__name__}:keep"):
        parfocal.train(cells, out=tmp_path / "runs", resume=True, custom_transform=keep)
    (run,) = parfocal.train(cells, out=tmp_path / "runs", resume=True, custom_transform=invert)
    assert run.recipe.views.custom_transform == f"{__name__}:invert"
    assert run.is_finished


def test_a_dataset_runs_only_code_that_is_allowed(cells: Path, stranger: Path) -> None:
    recipe = stranger / "recipe.yaml"
    with pytest.raises(CodeNotAllowedError, match=r"pass allow_code=\['stranger'\]"):
        parfocal.ImageDataset(cells, "train", recipe)
    assert not (stranger / "ran").exists()
    allowed = parfocal.ImageDataset(cells, "train", recipe, allow_code=["stranger"])
    passed = parfocal.ImageDataset(cells, "train", recipe, custom_transform=invert)
    plain = parfocal.ImageDataset(cells, "train")
    assert allowed[0][0].allclose(1 - plain[0][0])
    assert passed[0][0].equal(allowed[0][0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:step", "No module named"),
        (f"{__name__}:missing", "missing"),
        ("step", "not of the form module:function"),
        (f"{__name__}:NOT_A_FUNCTION", "is not a function"),
        (f"{__name__}:np.flip", "has no attribute 'np.flip'"),
    ],
)
def test_a_custom_transform_that_does_not_exist_is_rejected(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_custom_transform(name, AllowedCode((__name__, "nowhere")))


def test_the_name_of_a_function_is_its_module_and_qualified_name() -> None:
    class Transform:
        def __call__(self, image: np.ndarray) -> np.ndarray:
            return image

    changes, allowed = separate_functions({"custom_transform": [invert, Transform()], "epochs": 2}, ())
    local = f"{__name__}:test_the_name_of_a_function_is_its_module_and_qualified_name.<locals>.Transform"
    assert changes == {"custom_transform": [f"{__name__}:invert", local], "epochs": 2}
    assert load_custom_transform(local, allowed) is not None
    with pytest.raises(UsageError, match="Two functions have the name"):
        separate_functions({"custom_transform": [Transform(), Transform()]}, ())
    with pytest.raises(UsageError, match="is not a list of modules"):
        separate_functions({}, "numpy")


def test_a_function_of_c_code_without_a_signature_is_called_with_the_image() -> None:
    transform = load_custom_transform("numpy:invert", AllowedCode(("numpy",)))
    assert transform is not None
    np.testing.assert_array_equal(transform(np.zeros(3, np.uint8), 0), np.full(3, 255))
