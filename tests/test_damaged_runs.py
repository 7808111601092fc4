"""A run with a damaged file ends in one error that names the file, whichever command reads it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import parfocal
from parfocal.errors import ParfocalError
from parfocal.run import Run
from parfocal.serving.server import serve_in_background
from tests.cells import SMALL_RECIPE, draw_cells
from tests.commands.run_command import expect_error
from tests.commands.run_command import parfocal as run_parfocal
from tests.report.read_report import draw_blank_figures

READERS = {
    "recipe.yaml": ("predict", "evaluate", "explain", "compare", "lab", "export", "serve", "train"),
    "model.safetensors": ("predict", "evaluate", "explain", "export", "serve"),
    "environment.json": ("predict", "evaluate", "explain", "compare", "lab", "export", "serve"),
    "table.csv": ("evaluate", "explain"),
    "metrics.json": ("compare", "lab", "serve"),
    "history.csv": ("evaluate", "compare"),
    "predictions/test.csv": ("explain", "compare", "csv"),
    "decision.json": ("predict", "evaluate", "explain", "compare", "export", "serve"),
    "initial_weights.json": ("compare", "lab"),
    "last.ckpt": ("train",),
}
"""The commands that read each file of a run."""

OPTIONAL = ("decision.json", "initial_weights.json", "last.ckpt")
"""The files without which a run is still a run."""

WRONG_TYPES: dict[str, Callable[[Any], Any]] = {
    "environment.json": lambda content: {**content, "data": {**content["data"], "classes": "normal"}},
    "metrics.json": lambda content: {**content, "test": {**content["test"], "per_class": [1, 2]}},
    "decision.json": lambda content: {**content, "temperature": "hot"},
    "initial_weights.json": lambda content: {**content, "text": 3},
}


def _damage(path: Path, kind: str) -> None:
    """Damage a file."""
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 8)
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "other content":
        path.write_text("[3]\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(WRONG_TYPES[path.name](json.loads(content))))
    elif path.suffix == ".csv":
        header, *rows = content.decode().splitlines()
        path.write_text("\n".join([header, *(",".join(["?"] * len(row.split(","))) for row in rows)]))
    elif path.suffix == ".yaml":
        path.write_text(content.decode().replace("epochs: 1\n", "epochs: [many]\n"))
    else:
        save_file(dict(list(load_file(path).items())[1:]), path, {"parfocal": json.dumps({"model": 3})})


# A run does not need the optional files.
DAMAGES = [
    (name, kind)
    for name in READERS
    for kind in ("missing", "empty", "binary", "cut", "other content", "wrong types")
    if not (kind == "missing" and name in OPTIONAL)
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `cells`, and a finished run in `runs/resnet20` that started from the weights of another."""
    folder = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
        cells = draw_cells(folder / "cells", train=24)
        changes = {**SMALL_RECIPE, "epochs": 1}
        (first,) = parfocal.train(cells, out=folder / "first", **changes)
        parfocal.train(cells, out=folder / "runs", init=str(first.folder), **changes)
        yield folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the run with an empty manifest; else the manifest would notice every change before a file is read."""
    monkeypatch.setenv("PARFOCAL_STORES", str(trained / "stores"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "resnet20" / "manifest.json").write_text('{"sha256": {}}')
    with draw_blank_figures():
        yield tmp_path / "runs" / "resnet20"


def _get_error(command: str, run: Path, cells: Path) -> str:
    """Run a command on a run, and return its only error."""
    if command == "serve":
        # The command would go on if there were no error.
        with pytest.raises(ParfocalError) as error, serve_in_background(run):
            pass
        return str(error.value)
    image = cells / "new_dataset" / "test" / "0.bmp"
    arguments: dict[str, tuple[str | Path, ...]] = {
        "predict": ("predict", run, image),
        "evaluate": ("evaluate", run),
        "explain": ("explain", run, "test", "--per-kind", "1"),
        "compare": ("compare", run),
        "lab": ("compare", run, "--format", "lab"),
        "csv": ("compare", run, "--format", "csv"),
        "export": ("export", run, "--to", "safetensors"),
        "train": ("train", cells, "--out", run.parent, "--resume"),
    }
    return expect_error(run_parfocal(*arguments[command]), 1)


@pytest.mark.parametrize(("name", "kind"), DAMAGES)
def test_a_damaged_file_is_named_by_every_command_that_reads_it(run: Path, trained: Path, name: str, kind: str) -> None:
    if name == "last.ckpt":
        (run / "metrics.json").unlink()
    _damage(run / name, kind)
    # An unfinished run is served, without metrics.
    commands = [each for each in READERS[name] if (name, kind, each) != ("metrics.json", "missing", "serve")]
    for command in commands:
        message = _get_error(command, run, trained / "cells")
        # Without its recipe, a folder is not a run.
        expected = "runs" if (name, kind) == ("recipe.yaml", "missing") else Path(name).name
        assert expected in message, command


def test_a_damaged_plan_is_not_read(run: Path, trained: Path) -> None:
    (run / "plan.md").write_bytes(bytes(range(256)))
    assert run_parfocal("compare", run).returncode == 0


def test_the_names_of_mistaken_images_do_not_leave_their_folder(run: Path, tmp_path: Path) -> None:
    assert run_parfocal("compare", run).returncode == 0
    path = run / "mistakes" / "mistakes.json"
    content = json.loads(path.read_text())
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    entry = {"id": "1", "truth": "normal", "predicted": "blast", "confidence": 1.0, "truth_probability": 0.0}
    content["mistakes"] = [{**entry, "image": "../../../secret.jpg"}]
    path.write_text(json.dumps(content))
    assert run_parfocal("compare", run).returncode == 0
    assert "c2VjcmV0" not in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("predictions", "evaluate"),
        ("figures", "compare"),
        ("mistakes", "compare"),
        ("export", "export"),
    ],
)
def test_nothing_is_written_through_a_link(run: Path, trained: Path, tmp_path: Path, folder: str, command: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run / folder, elsewhere) if (run / folder).is_dir() else elsewhere.mkdir()
    shutil.rmtree(run / folder, ignore_errors=True)
    (run / folder).symlink_to(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in [elsewhere, *elsewhere.iterdir()]}
    assert f"{run / folder} is a link" in _get_error(command, run, trained / "cells")
    assert {path: path.stat().st_mtime_ns for path in [elsewhere, *elsewhere.iterdir()]} == before


def test_a_file_that_is_a_link_is_replaced_and_its_target_stays(run: Path, tmp_path: Path) -> None:
    names = ("metrics.json", "decision.json", "submission.csv", "predictions/test.csv")
    for number, name in enumerate(names):
        shutil.move(run / name, tmp_path / f"target{number}")
        (run / name).symlink_to(tmp_path / f"target{number}")
        (tmp_path / f"target{number}").chmod(0o444)
    before = [(tmp_path / f"target{number}").read_bytes() for number in range(len(names))]
    parfocal.evaluate(run, tta="flips")
    assert [(tmp_path / f"target{number}").read_bytes() for number in range(len(names))] == before
    assert not any((run / name).is_symlink() for name in names)
    assert Run(run).is_finished
