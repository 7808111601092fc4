"""The manifest of a run: altered and missing files are errors, and a kill at any moment leaves a run that resumes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import parfocal
from parfocal.errors import ParfocalError
from parfocal.manifest import LISTED_FILES, MANIFEST_FILE, create_manifest, file_exists, verify_file, write_listed_file
from parfocal.run import Run
from parfocal.training import train as train_module
from tests.cells import SMALL_RECIPE, draw_cells
from tests.commands.run_command import CommandResult
from tests.commands.run_command import parfocal as run_command
from tests.training.resuming import assert_identical_runs

CHANGES = {**SMALL_RECIPE, "epochs": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cells` and a finished run in `runs/resnet20`."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
        cells = draw_cells(folder / "cells", train=16, valid=8, test=4)
        parfocal.train(cells, out=folder / "runs", **CHANGES)
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy of the runs, to be damaged."""
    return shutil.copytree(trained / "runs", tmp_path / "runs")


def _use(trained: Path, runs: Path, name: str) -> CommandResult:
    """Run a command that reads the file of the run."""
    run = runs / "resnet20"
    if name == "last.ckpt":
        (run / "metrics.json").unlink()
        return run_command("train", trained / "cells", "--out", runs, "--resume")
    if name == "table.csv":
        return run_command("evaluate", run)
    return run_command("predict", run, trained / "cells" / "resnet_18_test.csv", "-o", runs / "out.csv")


@pytest.mark.parametrize("name", LISTED_FILES)
def test_an_altered_byte_is_an_error_that_names_the_file(trained: Path, runs: Path, name: str) -> None:
    path = runs / "resnet20" / name
    content = bytearray(path.read_bytes())
    # A digit of a text file; in the middle of the tensors otherwise.
    position = len(content) // 2
    if path.suffix not in (".safetensors", ".ckpt"):
        position = next(index for index in range(len(content) - 1, 0, -1) if chr(content[index]).isdigit())
    content[position] ^= 1
    path.write_bytes(content)
    result = _use(trained, runs, name)
    assert result.returncode == 1
    assert f"Error: {path} was changed after it was written" in result.stderr
    assert f"delete {path.parent / 'manifest.json'}" in result.stderr
    assert "Traceback" not in result.stderr
    (runs / "resnet20" / "manifest.json").unlink()
    assert "was changed" not in _use(trained, runs, "decision.json").stderr


@pytest.mark.parametrize("name", LISTED_FILES)
def test_a_listed_file_that_is_missing_is_an_error_that_names_it(trained: Path, runs: Path, name: str) -> None:
    path = runs / "resnet20" / name
    path.unlink()
    result = _use(trained, runs, name)
    assert result.returncode == 1
    assert f"Error: {path} is missing, but manifest.json lists it." in result.stderr


def test_a_folder_of_runs_notices_the_run_that_lost_its_recipe(trained: Path, runs: Path) -> None:
    shutil.copytree(runs / "resnet20", runs / "other")
    (runs / "resnet20" / "recipe.yaml").unlink()
    result = run_command("compare", runs)
    assert result.returncode == 1
    assert f"{runs / 'resnet20' / 'recipe.yaml'} is missing" in result.stderr


def test_a_finished_run_does_not_need_its_checkpoint(trained: Path, runs: Path) -> None:
    (runs / "resnet20" / "last.ckpt").unlink()
    assert run_command("train", trained / "cells", "--out", runs, "--resume").returncode == 0
    assert _use(trained, runs, "model.safetensors").returncode == 0


def test_commands_that_rewrite_a_file_rewrite_its_entry(trained: Path, runs: Path) -> None:
    run = runs / "resnet20"
    before = json.loads((run / "manifest.json").read_text())["sha256"]
    for options in (["--tta", "flips"], ["--refer", "0.8"], ["--operating-point", "sensitivity=0.9"]):
        assert run_command("evaluate", run, *options).returncode == 0
        assert _use(trained, runs, "decision.json").returncode == 0
    after = json.loads((run / "manifest.json").read_text())["sha256"]
    assert {name for name in LISTED_FILES if before[name] != after[name]} == {"decision.json"}
    assert all(len(checksums) == 1 for checksums in after.values())


def test_a_run_without_a_manifest_is_read_with_a_line_of_warning(trained: Path, runs: Path) -> None:
    run = runs / "resnet20"
    manifest = run / "manifest.json"
    expected = manifest.read_bytes()
    manifest.unlink()
    result = _use(trained, runs, "model.safetensors")
    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        f"Warning: {run} has no manifest.json, so damaged files are not noticed. `parfocal evaluate {run}` writes it."
    ]
    assert run_command("evaluate", run).returncode == 0
    assert manifest.read_bytes() == expected


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"{}", b'{"sha256": 1}', b'{"sha256": {"a.txt": []}}'])
def test_a_damaged_manifest_is_an_error_that_names_it(trained: Path, runs: Path, content: bytes) -> None:
    (runs / "resnet20" / "manifest.json").write_bytes(content)
    result = _use(trained, runs, "model.safetensors")
    assert result.returncode == 1
    assert f"Error: {runs / 'resnet20' / 'manifest.json'} is damaged" in result.stderr


def test_an_ensemble_has_a_manifest(trained: Path, runs: Path) -> None:
    shutil.copytree(runs / "resnet20", runs / "other")
    out = runs.parent / "both"
    assert run_command("evaluate", runs, "--ensemble", "--out", out).returncode == 0
    text = (out / "decision.json").read_text()
    (out / "decision.json").write_text(text.replace('"n_images": 8', '"n_images": 9'))
    result = run_command("predict", out, trained / "cells" / "resnet_18_test.csv", "-o", runs / "out.csv")
    assert result.returncode == 1
    assert f"{out / 'decision.json'} was changed" in result.stderr


def test_a_manifest_of_another_program_lists_nothing(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with write_listed_file(tmp_path / "decision.json") as temporary_path:
        temporary_path.write_text("{}")
    assert verify_file(tmp_path / "decision.json")
    assert (tmp_path / "manifest.json").read_text() == '{"name": "a web page"}'


def test_a_file_that_is_replaced_while_it_is_verified_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "decision.json"
    create_manifest(tmp_path)
    contents = iter(["second", "third"])

    def write(content: str) -> None:
        with write_listed_file(path) as temporary_path:
            temporary_path.write_text(content)

    write("first")
    is_file = Path.is_file

    def replace_before(checked: Path) -> bool:
        # Between reading the manifest and the file.
        if checked == path and (content := next(contents, None)):
            write(content)
        return is_file(checked)

    monkeypatch.setattr(Path, "is_file", replace_before)
    assert verify_file(path)
    assert path.read_text() == "third"


def test_a_file_is_absent_or_the_coming_one_until_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "decision.json"
    create_manifest(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _fail_for(path))
        with pytest.raises(ParfocalError), write_listed_file(path) as temporary_path:
            temporary_path.write_text("first")
    assert not verify_file(path)
    assert not file_exists(path)
    path.write_text("first")
    assert verify_file(path)
    path.write_text("other")
    with pytest.raises(ParfocalError, match=r"decision\.json was changed"):
        verify_file(path)


def _fail_for(path: Path) -> Callable[[Path, Path], Path]:
    replace = Path.replace

    def fail(temporary_path: Path, target: Path) -> Path:
        if target == path:
            raise OSError(5, "Input/output error")
        return replace(temporary_path, target)

    return fail


@pytest.fixture(scope="module")
def killed_runs(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders that a kill right before each file of a training is renamed would leave, in order."""
    folder = tmp_path_factory.mktemp("killed")
    snapshots: list[Path] = []
    replace = Path.replace

    def copy_and_replace(temporary_path: Path, target: Path) -> Path:
        if "runs" in Path(target).parts:
            snapshots.append(shutil.copytree(folder / "runs", folder / f"{len(snapshots)}-{Path(target).name}"))
        return replace(temporary_path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(trained / "stores"))
        patch.setattr(Path, "replace", copy_and_replace)
        parfocal.train(trained / "cells", out=folder / "runs", **CHANGES)
    return snapshots


def _read_files(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Return the names and contents of all files but the manifest and temporary files."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = [name for name in names if name != MANIFEST_FILE and not name.endswith((".part", "lock"))]
    return tuple((name, (folder / name).read_bytes()) for name in kept)


def test_a_training_that_is_killed_between_any_two_writes_resumes_to_the_same_weights(
    trained: Path, killed_runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARFOCAL_STORES", str(trained / "stores"))
    monkeypatch.setattr(train_module, "write_preview", lambda path, *_: path.touch())
    names = [path.name.partition("-")[2] for path in killed_runs]
    assert {*LISTED_FILES, "manifest.json", "history.csv", "metrics.json", "test.csv"} <= set(names)
    resumed: set[tuple[tuple[str, bytes], ...]] = set()
    for folder in killed_runs:
        run = Run(folder / "resnet20")
        for name in LISTED_FILES:
            verify_file(run.folder / name)
        # Folders that differ in the manifest alone resume alike, since both manifests accept all files.
        content = _read_files(run.folder)
        if content in resumed:
            continue
        resumed.add(content)
        resume = (run.folder / "recipe.yaml").exists()
        parfocal.train(trained / "cells", out=folder, resume=resume, **CHANGES)
        assert_identical_runs(trained / "runs" / "resnet20", run.folder)
        assert all(verify_file(run.folder / name) for name in LISTED_FILES), folder.name
